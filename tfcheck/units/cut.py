"""The graph of one loss, cut between its units: what each is given there, and what computes it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from tfcheck.measure.lines import Direction, Factors, random_direction
from tfcheck.trace.recording import TapeCall
from tfcheck.units.assembly import Assembler, Assembly, Promoted
from tfcheck.units.crossings import Crossings
from tfcheck.units.lineage import follows_in_jumps, leaves_before
from tfcheck.units.live import Live
from tfcheck.units.moves import Moves
from tfcheck.units.sources import Leaves, Output, Source, UndividedError

_KINKED = frozenset(
    {
        *("Relu", "Relu6", "LeakyRelu", "Selu", "Elu", "Abs", "Maximum", "Minimum", "Max", "Min"),
        *("MaxPool", "MaxPoolV2", "MaxPool3D", "Select", "SelectV2", "Sign", "Floor", "Round"),
        *("PartitionedCall", "StatefulPartitionedCall", "TopKV2", "SegmentMax", "ClipByValue"),
    }
)
"""Operations that may have kinks, among them calls of functions, of which nothing is known."""


class CutGraph:
    """The graph of one loss, cut between its units.

    Args:
        call: the tape's call.
        promoted: the graph of the step.
        leaves: what the loss is differentiated for.

    Attributes:
        promoted: the graph of the step.
        paths: the path of each unit.
        sources: what the units are given that moves.
        outputs: for each unit what it gives that the tape has a gradient of.
        targets: what the loss is a sum of.
        giving: the units that give anything that moves.
        kernels: the sources, by number, that are large kernels.
        kinked: the units that may have kinks.
        rough: the units that are partly computed in float32.
        parts: parts of the step's graph, as functions.
        fetches: the names of the tensors to evaluate at a point.

    Raises:
        UndividedError: if the units cannot be told apart.
    """

    def __init__(self, call: TapeCall, promoted: Promoted, leaves: Leaves) -> None:
        if call.division is None:
            raise UndividedError
        names = promoted.names
        self.promoted = promoted
        self.paths = call.division.paths
        self.targets = [
            Output(names[target.name], (None if weight is None else names[weight.name],), None)
            for target, weight in zip(call.targets, call.output_gradients, strict=True)
        ]
        targets = [target.name for target in self.targets]
        self._live = live = Live(promoted.graph, call.division, leaves, targets)
        shares = {
            names[tensor.name]: None if share is None else names[share.name]
            for tensor, share in zip(call.division.behind, call.shares, strict=True)
        }
        crossings = Crossings(live, shares, self.targets)
        self._cut = crossings.cut
        self.sources = crossings.sources
        self.outputs = crossings.outputs
        self.giving = crossings.giving
        self.kernels = crossings.kernels
        self.kinked = live.units_with(lambda op: op.type in _KINKED)
        self.rough = live.units_with(
            lambda op: any(t.dtype.is_floating and t.dtype.size < 8 for t in op.outputs)
        )
        self._assembler = Assembler(promoted, live)
        self.parts: dict[Any, tuple[Callable[..., Any], list[str]]] = {}
        self._before: dict[str, frozenset[str]] = {}
        assemblies = (self.assembled(sorted(self.outputs)), self.whole(), self.flowing())
        given = [name for assembly in assemblies for name in assembly.feeds.values()]
        totals = [n for s in self.sources for n in (s.name, s.total, *s.beyond) if n is not None]
        self.fetches = tuple(dict.fromkeys([*given, *self.weights_of(self.outputs), *totals]))

    # -- computing them ------------------------------------------------------------------------

    @property
    def made(self) -> list[Source]:
        """The sources that units make."""
        return [source for source in self.sources if source.leaf is None]

    def flowing(self) -> Assembly:
        """What computes all that units give each other from the variables."""
        return self._computed([[Output(source.name, (), None) for source in self.made]])

    def weights_of(self, units: Iterable[int]) -> list[str]:
        """The tensors of the gradients that weigh what units give."""
        weights = (w for unit in units for o in self.outputs[unit] for w in o.weights)
        return list(dict.fromkeys(weight for weight in weights if weight is not None))

    def assembled(self, units: Sequence[int]) -> Assembly:
        """What computes the outputs of some units from what they are given."""
        return self._assembler.assembled([self.outputs[unit] for unit in units], self.sources)

    def whole(self) -> Assembly:
        """What computes the loss from the variables, with nothing cut in between."""
        return self._computed([self.targets])

    def _computed(self, outputs: Sequence[Sequence[Output]]) -> Assembly:
        leaves = [source for source in self.sources if source.leaf is not None]
        return self._assembler.assembled(outputs, leaves, through_gates=True)

    # -- what they are given -------------------------------------------------------------------

    def leaves(self, names: Iterable[str]) -> list[Source]:
        """The sources that are a variable, by the names of the tensors that hold its value."""
        held_by = dict.fromkeys(names)
        return [source for name in held_by for source in self._leaf_sources.get(name, ())]

    @cached_property
    def _leaf_sources(self) -> dict[str, list[Source]]:
        found: dict[str, list[Source]] = {}
        for source in self.sources:
            if source.leaf is not None:
                found.setdefault(source.leaf, []).append(source)
        return found

    def drawn(self, rng: np.random.Generator, source: Source, unit: float) -> Direction:
        """A random direction in a source, with entries of this standard deviation."""
        kernel = self.kernels.get(source.number)
        return random_direction(
            rng.standard_normal,
            source.shape,
            unit,
            product=source.large,
            transposed=kernel is not None and kernel.transposed,
        )

    def are_products(self, moves: Moves) -> bool:
        """Whether all directions in large kernels are such as can be moved by a thin product."""
        return all(
            isinstance(direction, Factors) and direction.transposed == kernel.transposed
            for number, direction in moves.directions.items()
            if (kernel := self.kernels.get(number)) is not None
        )

    # -- what leads to what --------------------------------------------------------------------

    def leaves_before(self, name: str) -> frozenset[str]:
        """The leaves that a tensor is computed from."""
        if name not in self._before:
            self._before[name] = leaves_before(self._live, name)
        return self._before[name]

    def follows_in_jumps(self, source: Source) -> bool:
        """Whether what units give is computed from a source by way of what is no float."""
        given = [output.name for unit in source.units for output in self.outputs[unit]]
        return follows_in_jumps(self._live, given, source.name, self._cut)
