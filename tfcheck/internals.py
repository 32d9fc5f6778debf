"""The only place where private names of TensorFlow and Keras are used, each with its reason.

`tests/test_internals.py` fails when one of them changes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

import keras
import tensorflow as tf

# What its dropout layers draw with: `keras.random.dropout` is another name for it, and no layer's.
# What it keeps of a thread has no public name either: names given so far, the global generator.
from keras.src import backend as keras_backend
from keras.src.backend.common import global_state

# The classes of what `tf.function(...)`, `tf.Variable(...)` and `iter(dataset)` make. To make one
# and ask for its class would take one of the numbers that TensorFlow names variables with.
from tensorflow.python.data.ops.iterator_ops import OwnedIterator

# Whether a tape that records sees a tensor: nothing public tells before the tape is asked. And what
# tapes are told of functions with gradients of their own: their backward functions, which no hook
# of `tf.custom_gradient` gives.
from tensorflow.python.eager import record
from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function

# Operation definitions of functions' bodies have no public accessor: `tf.Operation.op_def` exists
# only for operations of a graph, and a FunctionDef holds bare NodeDefs.
# The latter is where eager random operations get their seeds from, which moves a generator on.
from tensorflow.python.framework import op_def_registry, random_seed

# Which types an operation has a kernel for is not in its definition, and no public call tells.
from tensorflow.python.framework.kernels import get_registered_kernels_for_op
from tensorflow.python.ops.resource_variable_ops import ResourceVariable

ITERATOR_KIND: type = OwnedIterator
TF_FUNCTION_KIND: type = Function
VARIABLE_KIND: type = ResourceVariable


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


def drawing_of_dropout() -> tuple[ModuleType, str]:
    """Where the function is with which Keras's layers draw what to drop."""
    return keras_backend.random, "dropout"


def global_state_of_keras() -> tuple[dict[str, Any], ...]:
    """What Keras keeps for the calling thread: names, the global seed generator, settings."""
    return vars(global_state.GLOBAL_STATE_TRACKER), vars(global_state.GLOBAL_SETTINGS_TRACKER)


def seeds_of_draws() -> tuple[ModuleType, str]:
    """Where the function is that gives a random operation its two seeds."""
    return random_seed, "get_seed"


def traced_anew(function: Any) -> Any:
    """A `tf.function` of the same Python function and options, with no traces yet.

    A trace that is made of the function itself stays in it, and so does that it was called once:
    only at its first call may it make variables. Its options are not public.
    """
    return function._clone(None)


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


def is_watched(tensor: tf.Tensor) -> bool:
    """Whether a tape that records now knows what a tensor was computed from."""
    return bool(record.should_record_backprop([tensor]))


def telling_of_tapes() -> tuple[ModuleType, str]:
    """Where tapes are told of a function with a gradient of its own, as a module and a name."""
    return record, "record_operation"


def copy_mask(source: Any, target: Any) -> None:
    """Hand a tensor's Keras mask on to a copy of the tensor.

    Keras keeps masks in an attribute of the tensor, and has no public call to read or set it.
    """
    mask = getattr(source, "_keras_mask", None)
    if mask is not None:
        target._keras_mask = mask
