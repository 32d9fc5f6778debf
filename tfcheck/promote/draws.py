"""Operations that draw random numbers: held fixed where they can be, noted where they cannot."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfcheck.graph.nodes import tensor_types
from tfcheck.promote.emitter import Emitter
from tfcheck.promote.notes import Note, Notes
from tfcheck.promote.types import RANDOM

_STATELESS = {
    "RandomStandardNormal": "StatelessRandomNormal",
    "RandomUniform": "StatelessRandomUniform",
    "TruncatedNormal": "StatelessTruncatedNormal",
}
"""Random operations that take a shape, and what draws the same from a seed."""

_DRAWING = frozenset(
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

_FOREIGN = frozenset({"EagerPyFunc", "PyFunc"})
"""Operations that may give something else at every evaluation, and need not."""


class Draws:
    """The random numbers that one graph or function draws.

    Args:
        emitter: writes the nodes.
        notes: where operations are noted that draw new numbers at every evaluation.

    Attributes:
        drawn: the tensors to feed in order to hold numbers fixed, each with whether it holds
            something else than floats.
        sampled: names of the nodes that draw floats.
    """

    def __init__(self, emitter: Emitter, notes: Notes) -> None:
        self._emitter = emitter
        self._notes = notes
        self.drawn: list[tuple[str, bool]] = []
        self.sampled: list[str] = []

    def note(self, node: Any, definition: Any) -> bool:
        """Note what draws numbers, or may give something else at every evaluation.

        Args:
            node: any operation, as it was.
            definition: its definition.

        Returns:
            Whether it draws random numbers.
        """
        in_function = self._emitter.in_function
        random = bool(RANDOM.match(node.op))
        if not random and node.op not in _DRAWING | _FOREIGN:
            return False
        types = [tf.as_dtype(dtype) for dtype in tensor_types(node, definition.output_arg)]
        if random and any(dtype.is_floating for dtype in types):
            self.sampled.append(node.name)
        if (random and definition.is_stateful) or (node.op in _DRAWING and not in_function):
            self._note_op(node, node.name)
        elif node.op not in _FOREIGN or in_function:
            return random
        refs = self._emitter.outputs(node, definition)
        self.drawn += [(r, not dtype.is_floating) for r, dtype in zip(refs, types, strict=True)]
        return random

    def _note_op(self, node: Any, name: str) -> None:
        self._notes.random_ops.append(Note(node.op, name, self._emitter.function))

    def rewrite(self, node: Any, inputs: Sequence[str]) -> bool:
        """Rewrite a random operation so that what it draws can be held fixed, if it must be.

        Args:
            node: any operation.
            inputs: its inputs in the new graph.

        Returns:
            Whether something else has taken its place.
        """
        in_function = self._emitter.in_function
        if node.op == "RandomShuffle" and not in_function:
            self._shuffle(node, inputs[0])
            return True
        if node.op not in _STATELESS or not in_function:
            return False
        self._seed(node, inputs)
        return True

    def _seed(self, node: Any, inputs: Sequence[str]) -> None:
        """In a function there is nothing to feed, so a seed takes the place of a state."""
        emitter = self._emitter
        digest = zlib.crc32(node.name.encode())
        seed = emitter.constant(f"{node.name}/seed", [digest & 0xFFFF, digest >> 16])
        dtype = node.attr["dtype" if "dtype" in node.attr else "Tout"].type
        types = {"dtype": dtype, "T": node.attr["T"].type, "Tseed": tf.int32.as_datatype_enum}
        given = (inputs[0], seed, *inputs[1:])
        ref = emitter.emit(node.name, _STATELESS[node.op], given, **types)
        visible = emitter.visible(dtype)
        if visible != dtype:
            emitter.rename(ref, emitter.cast(f"{node.name}/raised", ref, dtype, visible))

    def _shuffle(self, node: Any, value: str) -> None:
        """Shuffling as gathering by a random permutation, which can be held fixed."""
        emit, constant = self._emitter.emit, self._emitter.constant
        whole = tf.int32.as_datatype_enum
        name, dtype = node.name, self._emitter.visible(node.attr["T"].type)
        zero = constant(f"{name}/zero", 0)
        shape = emit(f"{name}/shape", "Shape", (value,), T=dtype, out_type=whole)
        types = {"Tindices": whole, "Taxis": whole}
        count = emit(f"{name}/count", "GatherV2", (shape, zero, zero), Tparams=whole, **types)
        one = constant(f"{name}/one", 1)
        order = emit(f"{name}/order", "Range", (zero, count, one), Tidx=whole)
        # Where operations must be deterministic, one without a seed is refused.
        seeds = {key: node.attr[key] for key in ("seed", "seed2")}
        permutation = emit(f"{name}/permutation", "RandomShuffle", (order,), T=whole, **seeds)
        emit(name, "GatherV2", (value, permutation, zero), Tparams=dtype, **types)
        self._note_op(node, f"{name}/permutation")
        self.drawn.append((permutation, True))
