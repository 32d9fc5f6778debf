"""float64 forms of operations that TensorFlow computes in float32 only, made of other operations.

Each form is a function of the operation's own inputs and attributes and gives, but for rounding,
what the operation gives. Without one an operation is measured in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def float64_form(node: Any) -> Any | None:
    """The float64 form of an operation as a `FunctionDef`, or None where there is none.

    Args:
        node: the `NodeDef` of the operation.
    """
    form = _FORMS.get(node.op)
    return None if form is None else form(node).function_def


def _resize_bilinear(node: Any) -> Any:
    matrix = _interpolation(node)

    def resize(images: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        rows = matrix(tf.shape(images)[1], size[0])
        columns = matrix(tf.shape(images)[2], size[1])
        return tf.einsum("pw,nowc->nopc", columns, tf.einsum("oh,nhwc->nowc", rows, images))

    return tf.function(resize, autograph=False).get_concrete_function(
        tf.TensorSpec([None] * 4, tf.float64), tf.TensorSpec([2], tf.int32)
    )


def _resize_bilinear_grad(node: Any) -> Any:
    matrix = _interpolation(node)

    def backward(gradients: tf.Tensor, images: tf.Tensor) -> tf.Tensor:
        rows = matrix(tf.shape(images)[1], tf.shape(gradients)[1])
        columns = matrix(tf.shape(images)[2], tf.shape(gradients)[2])
        return tf.einsum("pw,nhpc->nhwc", columns, tf.einsum("oh,nopc->nhpc", rows, gradients))

    images = tf.TensorSpec([None] * 4, tf.float64)
    return tf.function(backward, autograph=False).get_concrete_function(images, images)


def _interpolation(node: Any) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """What gives the matrix of bilinear interpolation along one axis, (new size, old size)."""
    align_corners = node.attr["align_corners"].b
    half_pixel_centers = node.attr["half_pixel_centers"].b

    def matrix(old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
        before, after = tf.cast(old, tf.float64), tf.cast(new, tf.float64)
        scale = before / after
        if align_corners:
            scale = tf.where(new > 1, (before - 1) / tf.maximum(after - 1, 1), scale)
        place = tf.range(after, dtype=tf.float64)
        place = (place + 0.5) * scale - 0.5 if half_pixel_centers else place * scale
        fraction = (place - tf.floor(place))[:, tf.newaxis]
        lower = tf.cast(tf.maximum(tf.floor(place), 0), tf.int32)
        upper = tf.minimum(tf.cast(tf.math.ceil(place), tf.int32), old - 1)
        at_lower = tf.one_hot(lower, old, dtype=tf.float64)
        return at_lower * (1 - fraction) + tf.one_hot(upper, old, dtype=tf.float64) * fraction

    return matrix


_FORMS = {"ResizeBilinear": _resize_bilinear, "ResizeBilinearGrad": _resize_bilinear_grad}
