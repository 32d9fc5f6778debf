"""One debug batch: from what `fit` takes to the flat tensors that a traced step is fed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcheck.errors import ArgumentError, ArgumentTypeError, BatchError, rule, some
from tfcheck.unchanged.unchanged import all_unchanged

PARTS = ("x", "y", "sample_weight")

_PLAIN = 0.5
"""Of a number that is to be missed nowhere: it has a logarithm, and so has what it lacks to 1."""


@dataclass(frozen=True)
class Batch:
    """The `data` argument of a `train_step`, as tensors.

    Attributes:
        structure: the nested structure of tensors that `train_step` gets.
        size: number of samples of the first input; None where no array has a batch axis.
    """

    structure: Any
    size: int | None

    @property
    def tensors(self) -> list[tf.Tensor]:
        """The tensors in the structure, flat; composite tensors in their parts."""
        return [
            leaf
            for leaf in tf.nest.flatten(self.structure, expand_composites=True)
            if leaf is not None
        ]

    @property
    def not_finite(self) -> str:
        """How much NaN or infinity there is in the first array with any; `""` for none."""
        for position, tensor in enumerate(self.tensors):
            if tensor.dtype.is_floating:
                wrong = int(tf.math.count_nonzero(~tf.math.is_finite(tensor)))
                if wrong:
                    shape = tuple(tensor.shape)
                    count = math.prod(shape)
                    return f"{wrong} of {count} values in array {position} (shape {shape})"
        return ""

    def filled(self) -> Batch:
        """The same batch with a plain number in the place of NaN and infinity."""
        tensors = [
            tf.where(tf.math.is_finite(tensor), tensor, tf.cast(_PLAIN, tensor.dtype))
            if tensor.dtype.is_floating
            else tensor
            for tensor in self.tensors
        ]
        return replace(self, structure=self.pack(tensors))

    def pack(self, tensors: Sequence[tf.Tensor]) -> Any:
        """Put other tensors of the same kinds into the structure."""
        replacement = iter(tensors)
        flat = tf.nest.flatten(self.structure, expand_composites=True)
        filled = [None if leaf is None else next(replacement) for leaf in flat]
        return tf.nest.pack_sequence_as(self.structure, filled, expand_composites=True)

    def parts(self, structure: Any) -> tuple[Any, Any, Any]:
        """x, y and sample_weight of a structure that `pack` filled."""
        return keras.utils.unpack_x_y_sample_weight(structure)

    def signature(self) -> tuple[tuple[tuple[int | None, ...], str], ...]:
        """Shapes and dtypes: batches with the same signature share a traced step."""
        return tuple((tuple(tensor.shape), tensor.dtype.name) for tensor in self.tensors)


def first_batch(x: Any, y: Any = None, sample_weight: Any = None) -> Batch:
    """Take what `fit` takes for one batch and make it the `data` of a `train_step`.

    Args:
        x: array, tensor, or dict or list of them; or a `tf.data.Dataset` or `PyDataset` of
            batches, of which the first is looked at.
        y: targets in the same forms, or None; must be None when `x` yields batches itself.
        sample_weight: weights in the same forms, or None; likewise.

    Returns:
        The batch, floats cast to Keras's `floatx` as `fit` casts them.

    Raises:
        BatchError: if the batch is empty, or has targets or weights for another number of samples
            than there are inputs; or for an iterator, such as a generator, whose batches others
            would miss.
    """
    if isinstance(x, Batch):
        return x
    if _yields_batches(x):
        if y is not None or sample_weight is not None:
            raise BatchError(
                "With a dataset as x, its batches hold the targets and weights. Received: "
                f"x of type {type(x).__name__!r} and also y or sample_weight. Give x alone."
            )
        data = _take_first(x)
        if isinstance(data, list):
            data = tuple(data)
        structure = _as_tensors(data)
    else:
        if x is None:
            raise BatchError(
                rule("A batch must hold inputs", "x", x, "Give the arrays of one batch")
            )
        packed = keras.utils.pack_x_y_sample_weight(
            _as_tensors(x),
            None if y is None else _as_tensors(y),
            None if sample_weight is None else _as_tensors(sample_weight),
        )
        structure = packed
        _reject_uneven(structure)
    return Batch(structure, _batch_size(structure))


def layer_inputs(inputs: Sequence[Any]) -> Batch:
    """The positional arguments of one call of a layer, as a batch.

    Raises:
        BatchError: if they are none, or cannot become tensors.
    """
    if not inputs:
        raise BatchError(
            rule("A layer must be given inputs", "inputs", inputs, "Give what it is called with")
        )
    batch = Batch(_as_tensors(tuple(inputs)), None)
    if any(0 in leaf.shape for leaf in _with_samples(batch.structure)):
        raise BatchError(
            "A layer's inputs must hold at least one sample. Received: an empty array. Give some "
            "data."
        )
    return batch


def split_arguments(
    arguments: Mapping[str, Any] | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Named arguments of a call: those that are made of arrays, and the others.

    Raises:
        ArgumentError: if `training` is among them.
        ArgumentTypeError: if they are no dict.
    """
    if not (arguments is None or isinstance(arguments, Mapping)):
        raise ArgumentTypeError(
            rule("arguments must be a dict of named ones", "arguments", arguments, "Try {}")
        )
    given = dict(arguments or {})
    if "training" in given:
        raise ArgumentError(
            rule(
                "The training argument follows from phase",
                "arguments",
                given,
                'Leave it out, and give phase="train" or "inference"',
            )
        )
    named = {name: value for name, value in given.items() if _is_of_arrays(value)}
    return named, {name: value for name, value in given.items() if name not in named}


def _is_of_arrays(value: Any) -> bool:
    leaves = [leaf for leaf in tf.nest.flatten(value) if leaf is not None]
    return bool(leaves) and all(hasattr(leaf, "shape") for leaf in leaves)


def _yields_batches(x: Any) -> bool:
    return isinstance(x, tf.data.Dataset | keras.utils.PyDataset) or hasattr(x, "__next__")


def _take_first(source: Any) -> Any:
    """The first batch of what yields batches, all of which it still yields to others."""
    if hasattr(source, "__next__"):
        raise BatchError(
            "A debug batch must be there for the training, too: what is taken from an iterator is "
            f"gone. Received: x of type {type(source).__name__!r}. Give a batch as arrays, or a "
            "tf.data.Dataset or PyDataset."
        )
    try:
        with all_unchanged(source):
            if isinstance(source, keras.utils.PyDataset):
                return source[0]
            return next(iter(_undisturbed(source)))
    except (StopIteration, IndexError) as error:
        raise BatchError(
            f"A dataset must yield at least one batch. Received: x of type "
            f"{type(source).__name__!r} that yields none. Give a dataset with data."
        ) from error


def _undisturbed(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """A copy of a dataset that can be iterated without moving the original's shuffling on.

    Datasets that reshuffle draw each iteration's order from a generator they share with every
    iterator; looking at one batch would change what training sees. The copy gets its own.
    """
    serialised = tf.raw_ops.DatasetToGraphV2(
        input_dataset=tf.data.experimental.to_variant(dataset), external_state_policy=0
    )
    graph_def = tf.compat.v1.GraphDef.FromString(serialised.numpy())
    for node in list(graph_def.node):
        node.device = ""
        position = _SHUFFLES.get(node.op)
        if position is not None:
            own = graph_def.node.add(name=f"{node.name}/own_generator", op="DummySeedGenerator")
            node.input[position] = own.name
    variant = tf.raw_ops.DatasetFromGraph(graph_def=graph_def.SerializeToString())
    return tf.data.experimental.from_variant(variant, dataset.element_spec)


_SHUFFLES = {"ShuffleDatasetV3": 4, "ShuffleAndRepeatDatasetV2": 5}
"""Position of the seed generator among the inputs of each dataset that shuffles."""


def _as_tensors(structure: Any) -> Any:
    return keras.tree.map_structure(_as_tensor, structure)


def _as_tensor(leaf: Any) -> Any:
    if leaf is None:
        return None
    if isinstance(leaf, tf.RaggedTensor | tf.SparseTensor):
        return tf.cast(leaf, keras.config.floatx()) if leaf.dtype.is_floating else leaf
    if hasattr(leaf, "to_numpy"):
        leaf = leaf.to_numpy()
    if hasattr(leaf, "tocoo"):
        return _as_tensor(_of_scipy(leaf.tocoo()))
    try:
        tensor = tf.convert_to_tensor(leaf)
    except (TypeError, ValueError) as error:
        raise BatchError(
            "What is given must be arrays or tensors, or dicts, lists and tuples of them. "
            f"Received: {type(leaf).__name__}. Convert it to a numpy array."
        ) from error
    if tensor.dtype.is_floating and tensor.dtype.name != keras.config.floatx():
        tensor = tf.cast(tensor, keras.config.floatx())
    return tensor


def _of_scipy(matrix: Any) -> tf.SparseTensor:
    """A sparse matrix of SciPy's, as `fit` hands it on."""
    indices = np.stack([matrix.row, matrix.col], axis=1).astype(np.int64)
    return tf.sparse.reorder(tf.SparseTensor(indices, matrix.data, matrix.shape))


def _batch_size(structure: Any) -> int | None:
    """How many samples the inputs hold; parts of a batch may hold other numbers of them."""
    sizes = [int(leaf.shape[0]) for leaf in _with_samples(structure)]
    if sizes and not any(sizes):
        raise BatchError(
            "A batch must hold at least one sample. Received: an empty batch. Give some data."
        )
    return next(iter(sizes), None)


def _reject_uneven(structure: Any) -> None:
    """Refuse arrays that `fit` would not cut into batches, unless they are in parts.

    What a dataset yields, `fit` passes on as it is, so a debug batch given as arrays may stand for
    what a dataset yields to a step of the user's own, such as labelled and unlabelled samples. But
    targets or weights in one piece beside inputs of one length are what they seem to be.
    """
    given = dict(zip(PARTS, keras.utils.unpack_x_y_sample_weight(structure), strict=True))
    parts = {name: _with_samples(part) for name, part in given.items()}
    whole = {name for name, part in given.items() if not tf.nest.is_nested(part)}
    inputs = {int(leaf.shape[0]) for leaf in parts["x"]}
    others = {int(leaf.shape[0]) for name in whole for leaf in parts[name]}
    if len(inputs) == 1 and others - inputs:
        shapes = [f"{name} {tuple(leaf.shape)}" for name in parts for leaf in parts[name]]
        raise BatchError(
            "All arrays of a batch must have the same number of samples. Received: "
            f"{some(shapes)}. Give as many as there are inputs."
        )


def _with_samples(part: Any) -> list[Any]:
    return [leaf for leaf in tf.nest.flatten(part) if leaf is not None and leaf.shape.rank]
