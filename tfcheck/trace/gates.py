"""Where a traced graph can be cut: tensors that go through an identity, or a gate, of their own."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tfcheck.internals import copy_mask

_LOOKED_THROUGH = frozenset({"Const", "Softmax", "Sigmoid"})
"""What Keras looks for behind the inputs of its losses, and what may be read while tracing."""


def is_float(leaf: Any) -> bool:
    """Whether this is a tensor of floats."""
    return isinstance(leaf, tf.Tensor) and leaf.dtype.is_floating


def cut(leaf: Any, cuts: list[tf.Tensor]) -> Any:
    """A float tensor through an identity, at which the graph can be cut; all else as it is."""
    if not is_float(leaf):
        return leaf
    identity = tf.identity(leaf)
    copy_mask(leaf, identity)
    cuts.append(identity)
    return identity


def gated(leaf: Any, gates: dict[int, tf.Tensor]) -> Any:
    """A float tensor of the graph behind two gates, the same for each tensor; all else as it is.

    What comes back through the second, which reshapes a tensor to the shape it has, is a tensor of
    its own, unlike an identity's gradient.
    """
    if not is_float(leaf) or not tf.is_symbolic_tensor(leaf) or leaf.op.type in _LOOKED_THROUGH:
        return leaf
    if leaf.shape.rank is None:
        # Where a rank is asked for, TensorFlow's optimizer takes wrong branches behind a reshape.
        return leaf
    if id(leaf) not in gates:
        gate = tf.ensure_shape(leaf, leaf.shape)
        known = leaf.shape.is_fully_defined()
        gate = tf.reshape(gate, leaf.shape if known else tf.shape(gate))
        gate.set_shape(leaf.shape)
        copy_mask(leaf, gate)
        gates[id(leaf)] = gate
    return gates[id(leaf)]
