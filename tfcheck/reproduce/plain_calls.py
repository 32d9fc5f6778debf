"""Calls as plain values: what is saved of their arguments, so that they can be made again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcheck.errors import ReproductionError
from tfcheck.reproduce.evidence import Given, Saved, Shelf
from tfcheck.reproduce.witness import Noted

MOST_BYTES = 2**26
"""So much of memory the arrays of a call may take: longer batches are cut."""

_HALVES = (np.dtype("float16"), tf.bfloat16.as_numpy_dtype)


def given_in(call: Noted, culprit: str) -> Given:
    """A call in plain values.

    Args:
        call: the call.
        culprit: whose it is.

    Raises:
        ReproductionError: if it cannot be saved.
    """
    shelf = Shelf()
    names = call.names or [f"input_{position}" for position in range(len(call.args))]
    args = tuple(_kept(culprit, n, arg, shelf) for n, arg in zip(names, call.args, strict=True))
    kwargs = {name: _kept(culprit, name, value, shelf) for name, value in call.kwargs.items()}
    gradients: tuple[Saved, ...] | None = None
    if any(gradient is not None for gradient in call.gradients):
        gradients = tuple(
            shelf.put("output_gradient", as_array(tf.zeros_like(o) if g is None else g))
            for o, g in zip(call.outputs, call.gradients, strict=True)
        )
    arrays = first_samples(shelf.arrays, MOST_BYTES)
    if arrays is None:
        raise ReproductionError(too_large(culprit, "inputs"))
    phase = "train" if call.training else "inference"
    return Given(args, kwargs, phase, gradients, arrays)


def first_samples(
    arrays: Mapping[str, npt.NDArray[Any]], most: int
) -> Mapping[str, npt.NDArray[Any]] | None:
    """So many of the first samples that arrays take no more than some bytes; None for none.

    Args:
        arrays: the arrays, each with its batch axis first.
        most: the bytes.
    """
    size = sum(array.nbytes for array in arrays.values())
    if size <= most:
        return arrays
    counts = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or not (count := counts.pop()):
        return None
    kept = math.floor(count * most / size)
    return {name: array[:kept].copy() for name, array in arrays.items()} if kept else None


def _kept(culprit: str, name: str, value: Any, shelf: Shelf) -> Any:
    """An argument with its arrays on a shelf."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if type(value) is dict:
        return {key: _kept(culprit, f"{name}_{key}", v, shelf) for key, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_kept(culprit, name, item, shelf) for item in value)
    if isinstance(value, tf.Tensor | tf.Variable | keras.Variable | np.ndarray | np.generic):
        return shelf.put(name, as_array(value))
    raise ReproductionError(
        f"A test must be able to save what its layer is given. Received: {culprit}, which is given "
        f"a {type(value).__name__}. Check the layer with tfcheck.check_layer."
    )


def as_array(value: Any) -> npt.NDArray[Any]:
    """A tensor or a variable as an array that NumPy can save by itself."""
    array = np.array(keras.ops.convert_to_numpy(value))
    if array.dtype in _HALVES:
        return array.astype(np.float32)
    return array.astype(np.bytes_) if array.dtype.hasobject else array


def too_large(culprit: str, what: str) -> str:
    """Say that too much would have to be saved."""
    return (
        f"A test must be small. Received: {culprit}, whose {what} take more than "
        f"{MOST_BYTES // 2**20} MiB. Check a smaller model, or the layer with tfcheck.check_layer."
    )
