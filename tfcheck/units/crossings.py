"""Where the graph of a loss is cut: what each unit is given there, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from tfcheck.units.live import Live
from tfcheck.units.sources import Output, Source, UndividedError, kernel_of


class Crossings:
    """What crosses from unit to unit, and the tape's gradients of it.

    Args:
        live: the live operations.
        shares: the tape's gradient of each tensor of which it was asked for one besides the
            leaves, None where it gives None.
        targets: what the loss is a sum of.

    Attributes:
        cut: the tensors that are cut: gates' outputs, leaves, and what another unit uses.
        outputs: for each unit what it gives that the tape has a gradient of.
        giving: the units that give anything that moves.
        sources: what the units are given that moves.
        kernels: the sources, by number, that are large kernels.

    Raises:
        UndividedError: if the units cannot be told apart.
    """

    def __init__(
        self, live: Live, shares: Mapping[str, str | None], targets: Sequence[Output]
    ) -> None:
        self._live = live
        self._shares = shares
        self._targets = targets
        self.cut = self._find_cut()
        self.outputs: dict[int, list[Output]] = {}
        self.giving: set[int] = set()
        self._find_outputs()
        uses = self._uses()
        self.sources = [
            self._source(number, name, users) for number, (name, users) in enumerate(uses.items())
        ]
        self.kernels = {
            source.number: kernel
            for source in self.sources
            if (kernel := kernel_of(source, uses[source.name])) is not None
        }

    def _find_cut(self) -> frozenset[str]:
        live = self._live
        cut: set[str] = set()
        for operation, inputs in live.operations:
            for tensor in inputs:
                maker = tensor.op
                if live.is_gate(maker) or tensor.name in live.leaves.totals:
                    cut.add(tensor.name)
                elif live.unit_of(maker.name) != live.unit_of(operation.name):
                    if tensor.name not in self._shares:
                        raise UndividedError
                    cut.add(tensor.name)
        return frozenset(cut)

    # -- what units give -----------------------------------------------------------------------

    def _find_outputs(self) -> None:
        live = self._live
        leaving = {*self.cut, *live.gates_of, *(target.name for target in self._targets)}
        for operation, _ in live.operations:
            for out in operation.outputs:
                if out.name not in leaving:
                    continue
                unit = live.unit_of(operation.name)
                self.giving.add(unit)
                if weights := self._weights(out.name):
                    known = [name for name in live.handed_on(out.name) if name in self.cut]
                    output = Output(out.name, weights, known[0] if known else None)
                    self.outputs.setdefault(unit, []).append(output)

    def _weights(self, name: str) -> tuple[str | None, ...]:
        """The gradients that weigh a tensor where it leaves its unit, None for one."""
        if name in self.cut:
            return tuple(w for w in [self._shares.get(name)] if w is not None)
        gates = self._live.gates_of.get(name, ())
        weights = [w for gate in gates if (w := self._shares.get(gate)) is not None]
        return (*weights, *(w for t in self._targets if t.name == name for w in t.weights))

    # -- what units are given ------------------------------------------------------------------

    def _uses(self) -> dict[str, list[tf.Operation]]:
        """For each tensor that is cut the operations that use it, the first one used first."""
        uses: dict[str, list[tf.Operation]] = {}
        for operation, inputs in self._live.operations:
            for tensor in inputs:
                if tensor.name in self.cut:
                    uses.setdefault(tensor.name, []).append(operation)
        return uses

    def _source(self, number: int, name: str, users: Sequence[tf.Operation]) -> Source:
        live, shares = self._live, self._shares
        tensor = live.graph.as_graph_element(name)
        if tensor.shape.rank is None or not tensor.shape.is_fully_defined():
            raise UndividedError
        variable = live.leaves.variables.get(name)
        behind = live.gates_of.get(name, []) if variable is None else live.reads.get(variable, [])
        totals = live.leaves.totals
        total = totals[name] if name in totals else shares.get(name)
        units = frozenset({live.unit_of(user.name) for user in users})
        return Source(
            name=name,
            shape=tuple(tensor.shape),
            users=units,
            units=frozenset(units & self.outputs.keys()),
            total=total,
            beyond=tuple(g for gate in behind if (g := shares.get(gate)) is not None),
            handed=shares.get(live.gate_before(tensor), total),
            leaf=live.leaf_of(tensor),
            number=number,
        )
