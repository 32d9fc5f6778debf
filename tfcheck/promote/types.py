"""Precision: what each type becomes, which operations follow, and constants as they were meant."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tfcheck.formats import FLOAT32, FORMATS
from tfcheck.graph.nodes import set_types, types_of
from tfcheck.internals import has_cpu_kernel

_DOUBLE = tf.float64.as_datatype_enum
_FLOAT = tf.float32.as_datatype_enum
_COMPLEX = tf.complex64.as_datatype_enum
_HALVES = frozenset(
    tf.as_dtype(known.name).as_datatype_enum
    for known in FORMATS.values()
    if known.bits < FLOAT32.bits
)

HIGH = {
    **dict.fromkeys((*_HALVES, _FLOAT), _DOUBLE),
    _COMPLEX: tf.complex128.as_datatype_enum,
}
"""What each type of low precision becomes."""

_MIDDLE = dict.fromkeys(_HALVES, _FLOAT)
"""What becomes of it where there is no kernel for that."""

_TYPED_BY_MEANING = frozenset(
    {"Bitcast", "DecodeRaw", "EagerPyFunc", "PyFunc", "PyFuncStateless", "XlaCallModule"}
)
"""Operations whose types are part of their meaning: bits, foreign functions, file formats."""

RANDOM = re.compile(
    r"^(Stateless|Stateful)?(Random(?!Shuffle|GammaGrad)|Multinomial|TruncatedNormal"
    r"|Uniform(?!Quant|Dequant|Requant)|StandardNormal|Parameterized)"
)
"""Operations that draw random numbers."""


def promote_attributes(node: Any, definition: Any, *, calls: bool) -> bool:
    """Set a node's types to the highest precision that has a kernel.

    Args:
        node: the node.
        definition: its definition.
        calls: whether it calls functions, which stay as they are.

    Returns:
        Whether that is float64.
    """
    attributes = {
        attribute.name: attribute
        for attribute in definition.attr
        if attribute.type in ("type", "list(type)")
    }
    low = {
        name for name in attributes if name in node.attr and HIGH.keys() & types_of(node.attr[name])
    }
    if calls or node.op in _TYPED_BY_MEANING:
        return not low
    if node.op == "Const":
        _promote_constant(node)
        return True
    if not low:
        return True
    if RANDOM.match(node.op):
        return False  # in another precision it draws other numbers
    for candidate in (HIGH, _MIDDLE):
        types = {name: _raised(node.attr[name], candidate) for name in low}
        if _has_form(node.op, attributes, types):
            for name, value in types.items():
                node.attr[name].CopyFrom(value)
            return candidate is HIGH
    return False


def _raised(attribute: Any, becomes: Mapping[int, int]) -> Any:
    """A copy of a type attribute with its low-precision types raised."""
    result = tf.compat.v1.AttrValue()
    result.CopyFrom(attribute)
    set_types(result, [becomes.get(dtype, dtype) for dtype in types_of(attribute)])
    return result


def _has_form(op: str, attributes: Mapping[str, Any], types: Mapping[str, Any]) -> bool:
    """Whether the operation's definition and some CPU kernel allow these types."""
    for name, value in types.items():
        allowed = attributes[name].allowed_values.list.type
        if allowed and not set(types_of(value)) <= set(allowed):
            return False
    single = {
        name: value.type for name, value in types.items() if value.WhichOneof("value") == "type"
    }
    return has_cpu_kernel(op, single)


def _promote_constant(node: Any) -> None:
    """Raise a constant of low precision."""
    dtype = node.attr["dtype"].type
    if dtype in HIGH:
        high = tf.as_dtype(HIGH[dtype])
        value = tf.make_ndarray(node.attr["value"].tensor)
        precise = _as_meant(value) if dtype in _HALVES else value.astype(high.as_numpy_dtype)
        node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(precise, dtype=high))
        node.attr["dtype"].type = high.as_datatype_enum


def _as_meant(value: Any) -> Any:
    """A constant in half precision as it was meant before it was rounded.

    A formula and its derivative hold different constants, √2 and 2/√π for erf, and three rounded
    digits of each do not belong together. Known ones are restored; others become the shortest
    decimal number that rounds to them. Wherever a constant stands, it is restored alike.
    """
    precise = value.astype(np.float64)
    if value.size > _LARGEST_LITERAL:
        return precise
    restored = [_restored(number) for number in value.ravel()]
    return np.array(restored, np.float64).reshape(value.shape)


def _restored(number: Any) -> float:
    for known in _KNOWN_CONSTANTS:
        for signed in (known, -known):
            if number.dtype.type(signed) == number:
                return signed
    decimals = (float(f"{float(number):.{digits}g}") for digits in range(1, 9))
    return next((d for d in decimals if number.dtype.type(d) == number), float(number))


_LARGEST_LITERAL = 16


_KNOWN_CONSTANTS = tuple(
    value
    for value in (
        *(math.sqrt(2) ** power for power in (-1, 1)),
        *(math.sqrt(math.pi) ** power for power in (-2, -1, 1, 2)),
        2 / math.sqrt(math.pi),
        math.sqrt(2 / math.pi),
        1 / math.sqrt(2 * math.pi),
        math.sqrt(2 * math.pi),
        2 * math.pi,
        0.5 * math.log(2 * math.pi),
        math.log(2 * math.pi),
        math.log(2),
        1 / math.log(2),
        math.log(10),
        1 / math.log(10),
        math.e,
        1 / 3,
        2 / 3,
        1 / 6,
        0.044715,
        3 * 0.044715,
        1.0507009873554805,
        1.6732632423543772,
        1.0507009873554805 * 1.6732632423543772,
    )
)
