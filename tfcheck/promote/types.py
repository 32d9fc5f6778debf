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

DOUBLE = tf.float64.as_datatype_enum


FLOAT = tf.float32.as_datatype_enum


COMPLEX = tf.complex64.as_datatype_enum


HALVES = frozenset(
    tf.as_dtype(known.name).as_datatype_enum
    for known in FORMATS.values()
    if known.bits < FLOAT32.bits
)


HIGH = {
    **dict.fromkeys((*HALVES, FLOAT), DOUBLE),
    COMPLEX: tf.complex128.as_datatype_enum,
}
"""What each type of low precision becomes."""


MIDDLE = dict.fromkeys(HALVES, FLOAT)
"""What becomes of it where there is no kernel for that."""


# Operations whose types are part of their meaning: bits, foreign functions, file formats.
TYPED_BY_MEANING = frozenset(
    {"Bitcast", "DecodeRaw", "EagerPyFunc", "PyFunc", "PyFuncStateless", "XlaCallModule"}
)


RANDOM = re.compile(
    r"^(Stateless|Stateful)?(Random(?!Shuffle|GammaGrad)|Multinomial|TruncatedNormal"
    r"|Uniform(?!Quant|Dequant|Requant)|StandardNormal|Parameterized)"
)


STATELESS = {
    "RandomStandardNormal": "StatelessRandomNormal",
    "RandomUniform": "StatelessRandomUniform",
    "TruncatedNormal": "StatelessTruncatedNormal",
}
"""Random operations that take a shape, and what draws the same from a seed."""

DRAWING = frozenset(
    {
        "AllCandidateSampler",
        "FixedUnigramCandidateSampler",
        "LearnedUnigramCandidateSampler",
        "LogUniformCandidateSampler",
        "ThreadUnsafeUnigramCandidateSampler",
        "UniformCandidateSampler",
    }
)
"""Other operations that draw random numbers."""

FOREIGN = frozenset({"EagerPyFunc", "PyFunc"})
"""Operations that may give something else at every evaluation, and need not."""


def raised(attribute: Any, becomes: Mapping[int, int]) -> Any:
    """A copy of a type attribute with its low-precision types raised."""
    result = tf.compat.v1.AttrValue()
    result.CopyFrom(attribute)
    set_types(result, [becomes.get(dtype, dtype) for dtype in types_of(attribute)])
    return result


def has_form(op: str, attributes: Mapping[str, Any], types: Mapping[str, Any]) -> bool:
    """Whether the operation's definition and some CPU kernel allow these types."""
    for name, value in types.items():
        allowed = attributes[name].allowed_values.list.type
        if allowed and not set(types_of(value)) <= set(allowed):
            return False
    single = {
        name: value.type for name, value in types.items() if value.WhichOneof("value") == "type"
    }
    return has_cpu_kernel(op, single)


def promote_constant(node: Any) -> None:
    """Raise a constant of low precision."""
    dtype = node.attr["dtype"].type
    if dtype in HIGH:
        high = tf.as_dtype(HIGH[dtype])
        value = tf.make_ndarray(node.attr["value"].tensor)
        precise = _as_meant(value) if dtype in HALVES else value.astype(high.as_numpy_dtype)
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
