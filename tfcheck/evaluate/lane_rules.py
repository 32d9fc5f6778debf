"""What operations of TensorFlow do with lanes, as far as a slice of what they give is enough."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeAlias

import tensorflow as tf

from tfcheck.evaluate.broadcasting import elementwise
from tfcheck.evaluate.contracting import bilinear, summed
from tfcheck.evaluate.lanes import Lanes, Operand
from tfcheck.evaluate.rearranging import reshaped, transposed
from tfcheck.evaluate.slices import single, take

Rule: TypeAlias = "Callable[[tf.Operation, Sequence[Operand]], Lanes | None]"


def through(op: tf.Operation, operands: Sequence[Operand]) -> Lanes | None:
    """What an operation gives in lanes; None where no rule tells, or all of it would change."""
    rule = _RULES.get(op.type)
    slices = all(operand.at for operand in operands if isinstance(operand, Lanes))
    known = all(out.shape.is_fully_defined() for out in op.outputs)
    if rule is None or not known or not (slices or op.type in _OF_WHOLE):
        return None
    return rule(op, operands)


def again(op: tf.Operation, *inputs: tf.Tensor) -> tf.Tensor:
    """The first output of the same operation on other tensors."""
    definition = op.op_def
    arguments = definition.input_arg
    inferred = {name for a in arguments for name in (a.type_attr, a.number_attr, a.type_list_attr)}
    attributes = {
        attribute.name: op.get_attr(attribute.name)
        for attribute in definition.attr
        if attribute.name not in inferred
    }
    named = {argument.name: given for argument, given in zip(arguments, inputs, strict=True)}
    found = getattr(tf.raw_ops, op.type)(**named, **attributes)
    return found if tf.is_tensor(found) else found[0]


def _elementwise(op: tf.Operation, operands: Sequence[Operand]) -> Lanes | None:
    return elementwise(partial(again, op), operands, op.outputs[0])


def _unchanged(op: tf.Operation, operands: Sequence[Operand]) -> Lanes | None:
    lanes = operands[0]
    if not isinstance(lanes, Lanes):
        return None
    return Lanes(op.outputs[0], lanes.parts, lanes.at, lanes.values)


def _bias(op: tf.Operation, operands: Sequence[Operand]) -> Lanes | None:
    if op.get_attr("data_format") != b"NHWC":
        return None
    return elementwise(tf.add, operands, op.outputs[0])


def _sum(op: tf.Operation, operands: Sequence[Operand]) -> Lanes | None:
    lanes, dimensions = operands[0], _integers(operands[1])
    if not isinstance(lanes, Lanes) or dimensions is None:
        return None
    dimensions = sorted({dimension % len(lanes.parts) for dimension in dimensions})
    out = op.outputs[0]
    keep = bool(op.get_attr("keep_dims"))
    if op.type == "Sum":
        return summed(lanes, dimensions, out, keep=keep)
    count = math.prod(math.prod(lanes.parts[dimension]) for dimension in dimensions)
    total = summed(lanes, dimensions, out * count, keep=keep)
    return Lanes(out, total.parts, total.at, total.values / count)


def _reshape(op: tf.Operation, operands: Sequence[Operand]) -> Lanes | None:
    lanes = operands[0]
    return reshaped(lanes, op.outputs[0]) if isinstance(lanes, Lanes) else None


def _transpose(op: tf.Operation, operands: Sequence[Operand]) -> Lanes | None:
    lanes, order = operands[0], _integers(operands[1])
    if not isinstance(lanes, Lanes) or order is None:
        return None
    return transposed(lanes, order, op.outputs[0])


def _integers(operand: Operand) -> list[int] | None:
    """A small vector of integers that the graph holds as a constant."""
    value = None if isinstance(operand, Lanes) else tf.get_static_value(operand)
    return None if value is None else [int(number) for number in value.ravel()]


def _product(
    operands: Sequence[Operand], labels: tuple[str, str, tuple[str, ...]], out: tf.Tensor
) -> Lanes | None:
    """A product of two operands of which one is in lanes."""
    one, other = operands
    first, second, given = labels
    if isinstance(one, Lanes):
        return None if isinstance(other, Lanes) else bilinear(one, other, labels, out)
    if isinstance(other, Lanes):
        return bilinear(other, one, (second, first, given), out)
    return None


def _matmul(op: tf.Operation, operands: Sequence[Operand]) -> Lanes | None:
    batched = op.type != "MatMul"
    first, second = ("adj_x", "adj_y") if batched else ("transpose_a", "transpose_b")
    shapes = [tensor.shape for tensor in op.inputs]
    if shapes[0][:-2] != shapes[1][:-2]:
        return None
    batch = "abcdefgh"[: len(shapes[0]) - 2]
    left = batch + ("zy" if op.get_attr(first) else "yz")
    right = batch + ("xz" if op.get_attr(second) else "zx")
    return _product(operands, (left, right, (*batch, "y", "x")), op.outputs[0])


def _einsum(op: tf.Operation, operands: Sequence[Operand]) -> Lanes | None:
    inputs, _, given = op.get_attr("equation").decode().replace(" ", "").partition("->")
    labels = inputs.split(",")
    plain = all(len(set(one)) == len(one) and one.isalpha() for one in labels)
    if len(labels) != 2 or not plain or set(given) - set(inputs):
        return None
    return _product(operands, (labels[0], labels[1], tuple(given)), op.outputs[0])


def _patches(op: tf.Operation, images: tf.Tensor) -> tf.Tensor:
    """The patches that a convolution looks at, [batch, rows, columns, height, width, channels]."""
    height, width = op.inputs[1].shape[:2]
    patches = tf.raw_ops.ExtractImagePatches(
        images=images,
        ksizes=[1, height, width, 1],
        strides=op.get_attr("strides"),
        rates=op.get_attr("dilations"),
        padding=op.get_attr("padding"),
    )
    rows, columns = op.outputs[0].shape[1:3]
    return tf.reshape(patches, [-1, rows, columns, height, width, images.shape[3]])


def _convolution(op: tf.Operation, operands: Sequence[Operand]) -> Lanes | None:
    images, kernel = operands
    depthwise = op.type == "DepthwiseConv2dNative"
    channels, expected = op.inputs[0].shape[3], op.inputs[1].shape[2]
    plain = op.get_attr("padding") != b"EXPLICIT" and op.get_attr("data_format") == b"NHWC"
    if not plain or channels != expected:
        return None
    out = op.outputs[0]
    given = ("b", "r", "s", "co") if depthwise else ("b", "r", "s", "o")
    if isinstance(kernel, Lanes):
        if isinstance(images, Lanes):
            return None
        return bilinear(kernel, _patches(op, images), ("hwco", "brshwc", given), out)
    if not isinstance(images, Lanes) or not _in_one_channel(images):
        return None
    (channel,) = images.at.values()
    one = take(kernel, kernel.shape, {2: channel})
    if depthwise:
        values = tf.einsum("Zbrshw,Zhwo->Zbrso", _lane_patches(op, images.values), one)
        parts = (*single(out.shape[:3]), tuple(kernel.shape[2:]))
        return Lanes(out, parts, {3: channel}, values)
    change = tf.einsum("Zbrshw,Zhwo->Zbrso", _lane_patches(op, images.change), one)
    return Lanes(out, single(out.shape), {}, out[None] + change)


def _lane_patches(op: tf.Operation, values: tf.Tensor) -> tf.Tensor:
    """The patches of one channel in every lane, [K, batch, rows, columns, height, width]."""
    batch, rows, columns = values.shape[1:]
    patches = _patches(op, tf.reshape(values, [-1, rows, columns, 1]))
    return tf.reshape(patches, [-1, batch, *patches.shape[1:5]])


def _pool(op: tf.Operation, operands: Sequence[Operand]) -> Lanes | None:
    (images,) = operands
    windows = (op.get_attr("ksize"), op.get_attr("strides"))
    separate = all(size[0] == 1 and size[3] == 1 for size in windows)
    plain = op.get_attr("padding") != b"EXPLICIT" and op.get_attr("data_format") == b"NHWC"
    if not (plain and separate and isinstance(images, Lanes) and _in_one_channel(images)):
        return None
    batch, rows, columns = images.values.shape[1:]
    pooled = again(op, tf.reshape(images.values, [-1, rows, columns, 1]))
    values = tf.reshape(pooled, [-1, batch, *pooled.shape[1:3]])
    return Lanes(op.outputs[0], single(op.outputs[0].shape), images.at, values)


def _in_one_channel(images: Lanes) -> bool:
    return set(images.at) == {3} and images.parts == single(images.unperturbed.shape)


def _gather(op: tf.Operation, operands: Sequence[Operand]) -> Lanes | None:
    """Rows of a table, such as those of an embedding, where a row is perturbed."""
    table, indices, axis = operands
    if not isinstance(table, Lanes) or isinstance(indices, Lanes) or _integers(axis) != [0]:
        return None
    if (
        op.get_attr("batch_dims")
        or 0 not in table.at
        or table.parts != single(table.unperturbed.shape)
    ):
        return None
    out, rank = op.outputs[0], len(indices.shape)
    at = {dimension - 1 + rank: i for dimension, i in table.at.items() if dimension}
    row = tf.cast(tf.reshape(table.at[0], [-1] + [1] * rank), indices.dtype)
    chosen = tf.cast(tf.equal(indices[None], row), out.dtype)
    rest = list(table.change.shape[1:])
    change = tf.reshape(chosen, [-1, *indices.shape, *(1 for _ in rest)])
    change *= tf.reshape(table.change, [-1, *(1 for _ in indices.shape), *rest])
    return Lanes(out, single(out.shape), at, take(out, out.shape, at) + change)


def _cross_entropy(op: tf.Operation, operands: Sequence[Operand]) -> Lanes | None:
    """The loss alone: the operation itself gives the gradient, too, for as much work again."""
    logits, labels = operands
    if not isinstance(logits, Lanes) or isinstance(labels, Lanes) or op.outputs[1].consumers():
        return None
    values, classes = logits.dense(), op.inputs[0].shape[-1]
    values -= tf.reduce_max(values, -1, keepdims=True)
    normaliser = tf.math.log(tf.reduce_sum(tf.exp(values), -1))
    if op.type == "SoftmaxCrossEntropyWithLogits":
        if labels.shape != op.inputs[0].shape:
            return None
        losses = tf.reduce_sum(labels * (normaliser[..., None] - values), -1)
    else:
        rows = tf.range(labels.shape[0], dtype=tf.int64) * classes + tf.cast(labels, tf.int64)
        flat = tf.reshape(values, [-1, labels.shape[0] * classes])
        losses = normaliser - tf.gather(flat, rows, axis=1)
    return Lanes(op.outputs[0], single(op.outputs[0].shape), {}, losses)


_CROSS_ENTROPIES = "SoftmaxCrossEntropyWithLogits SparseSoftmaxCrossEntropyWithLogits"
_OF_WHOLE = frozenset(_CROSS_ENTROPIES.split())
"""Operations whose rules serve where all of an operand changes, too."""


def _named(names: str, rule: Rule) -> Iterable[tuple[str, Rule]]:
    return ((name, rule) for name in names.split())


_RULES: dict[str, Rule] = dict(
    [
        *_named("Identity StopGradient PreventGradient Snapshot EnsureShape", _unchanged),
        *_named(
            "Abs Acos Acosh Asin Asinh Atan Atanh Cast Ceil Cos Cosh Digamma Elu Erf Erfc Erfinv "
            "Exp Expm1 Floor Inv IsFinite IsInf IsNan LeakyRelu Lgamma Log Log1p LogicalNot Neg "
            "Reciprocal Relu Relu6 Rint Round Rsqrt Selu Sigmoid Sign Sin Sinh Softplus Softsign "
            "Sqrt Square Tan Tanh",
            _elementwise,
        ),
        *_named(
            "Add AddV2 Atan2 Div DivNoNan Equal FloorDiv FloorMod Greater GreaterEqual Less "
            "LessEqual LogicalAnd LogicalOr Maximum Minimum Mul MulNoNan NotEqual Pow RealDiv "
            "SquaredDifference Sub Xdivy Xlog1py Xlogy SelectV2 ClipByValue",
            _elementwise,
        ),
        *_named("BiasAdd", _bias),
        *_named("Sum Mean", _sum),
        *_named("Reshape Squeeze ExpandDims", _reshape),
        *_named("Transpose", _transpose),
        *_named("MatMul BatchMatMul BatchMatMulV2", _matmul),
        *_named("Einsum", _einsum),
        *_named("Conv2D DepthwiseConv2dNative", _convolution),
        *_named("MaxPool AvgPool", _pool),
        *_named("GatherV2", _gather),
        *_named(_CROSS_ENTROPIES, _cross_entropy),
    ]
)
