"""The only place where private names of TensorFlow and Keras are used, each with its reason.

`tests/test_internals.py` fails when one of them changes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import tensorflow as tf

# Operation definitions of functions' bodies have no public accessor: `tf.Operation.op_def` exists
# only for operations of a graph, and a FunctionDef holds bare NodeDefs.
from tensorflow.python.framework import op_def_registry

# Which types an operation has a kernel for is not in its definition, and no public call tells.
from tensorflow.python.framework.kernels import get_registered_kernels_for_op


def op_definition(op: str) -> Any | None:
    """The `OpDef` of an operation type, or None when TensorFlow does not know it."""
    return op_def_registry.get(op)


@functools.cache
def _kernel_constraints(op: str) -> tuple[dict[str, frozenset[int]], ...]:
    """For each CPU kernel of an operation, the types it takes for each constrained attribute."""
    kernels = get_registered_kernels_for_op(op).kernel
    return tuple(
        {
            constraint.name: frozenset(constraint.allowed_values.list.type)
            for constraint in kernel.constraint
        }
        for kernel in kernels
        if kernel.device_type in ("CPU", "DEFAULT")
    )


def has_cpu_kernel(op: str, types: Mapping[str, int]) -> bool:
    """Whether some CPU kernel takes these `DataType`s for the operation's type attributes."""
    kernels = _kernel_constraints(op)
    return not kernels or any(
        all(types.get(name) in (None, *allowed) for name, allowed in kernel.items())
        for kernel in kernels
    )


def sublayers(model: keras.Layer) -> Iterator[keras.Layer]:
    """The model and every layer in it, each once.

    `keras.Model.layers` lists the direct children only, and no public call goes deeper.
    """
    yield from model._flatten_layers(include_self=True, recursive=True)


def recorded_losses(layer: keras.Layer) -> tuple[list[Any], set[int]]:
    """The containers in which a layer keeps what `add_loss` was given.

    Tracing appends symbolic tensors there; `keras.Layer.losses` only reads.
    """
    return layer._losses, layer._loss_ids


def lazily_built_parts(model: keras.Layer) -> list[Any]:
    """Objects that `compile` made and that build themselves at their first use.

    Tracing is such a first use, and neither object is public.
    """
    parts = (getattr(model, "_compile_loss", None), getattr(model, "_compile_metrics", None))
    return [part for part in parts if part is not None]


def variable_spec(handle: Any) -> tf.TensorSpec | None:
    """Shape and dtype of the variable behind a captured resource, or None if it is no variable.

    Lookup tables and iterators are resources too, and nothing public tells them apart. A handle
    knows its variable's type and shape.
    """
    known = getattr(handle, "_handle_data", None)
    if known is None or not known.is_set or not known.shape_and_type:
        return None
    behind = known.shape_and_type[0]
    return tf.TensorSpec(tf.TensorShape(behind.shape), tf.as_dtype(behind.dtype))


def live_variable(variable: Any) -> Any:
    """The `tf.Variable` behind a Keras variable.

    `keras.Variable.value` is it only outside of layers: within one it may be a cast tensor.
    """
    return variable._value if isinstance(variable, keras.Variable) else variable


def copy_mask(source: Any, target: Any) -> None:
    """Hand a tensor's Keras mask on to a copy of the tensor.

    Keras keeps masks in an attribute of the tensor, and has no public call to read or set it.
    """
    mask = getattr(source, "_keras_mask", None)
    if mask is not None:
        target._keras_mask = mask
