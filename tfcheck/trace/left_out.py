"""Trainable variables that a loss depends on, and that no tape of the step is asked for.

A network that judges, teaches or follows stands aside, and is left out on purpose: what the step
itself assigns to, what it calls as at inference, and what is a copy of a network that it trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from types import MappingProxyType
from typing import Any

import keras

from tfcheck.graph.nodes import meets
from tfcheck.internals import live_variable
from tfcheck.trace.recording import Recording


class LeftOut:
    """What a step leaves out.

    Args:
        recording: what was heard of the step.
        assigned: what it assigns to, by the identities of the variables' handles.
        forward: the nodes that its losses are computed from, in program order. Defaults to none,
            as where no graph is known.
        placeholder_of: the name of the placeholder of each captured tensor, by its identity.
            Defaults to none.
    """

    def __init__(
        self,
        recording: Recording,
        assigned: Set[int],
        forward: Sequence[Any] = (),
        placeholder_of: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        self._recording = recording
        self._forward = forward
        self._placeholder_of = placeholder_of
        self._inputs = {node.name for node in forward if node.op == "Placeholder"}
        self._assigned = assigned
        asked = [source for call in recording.tape_calls for source in call.sources]
        self._asked = {id(source) for source in asked}
        self._asked_names = set(map(self._name, asked)) - {""}

    def variables(self) -> tuple[Any, ...]:
        """The variables that are left out, and not on purpose as far as can be told."""
        expected = {id(variable) for variable in self._recording.expected}
        received = {id(applied.variable) for applied in self._recording.applied}
        return tuple(
            variable
            for key, variable in self._recording.reached.items()
            if key in expected - self._asked - received
            and id(live_variable(variable).handle) not in self._assigned
            and not self._is_fixed(variable)
            and (self._in_line(variable) or not self._is_of_a_copy(variable))
        )

    def _name(self, variable: Any) -> str:
        handle = getattr(live_variable(variable), "handle", None)
        return self._placeholder_of.get(id(handle), "")

    def _in_line(self, variable: Any) -> bool:
        """Whether it acts on what others make that are differentiated for, or they on that."""
        own = {self._name(variable)}
        return meets(self._forward, own, self._asked_names, self._inputs) or meets(
            self._forward, self._asked_names, own, self._inputs
        )

    def _is_fixed(self, variable: Any) -> bool:
        """Whether it belongs to a network that is called as at inference, and not trained."""
        networks = [layer for layer in self._networks() if _holds(layer, [id(variable)])]
        calls = [call for call in self._recording.own_calls.made if call.layer in networks]
        trained = any(_holds(layer, self._asked) for layer in networks)
        return bool(calls) and not trained and all(call.training is False for call in calls)

    def _is_of_a_copy(self, variable: Any) -> bool:
        """Whether it belongs to a network of the shapes of one that is trained."""
        networks = [layer for layer in self._networks() if _holds(layer, [id(variable)])]
        trained = [layer for layer in self._networks() if _holds(layer, self._asked)]
        return any(
            _shapes(network) == _shapes(other)
            for network in networks
            for other in trained
            if other is not network
        )

    def _networks(self) -> list[keras.Layer]:
        """The layers that the model itself holds."""
        return list(getattr(self._recording.owner, "layers", ()))


def _holds(layer: keras.Layer, identities: Iterable[int]) -> bool:
    own = {id(variable) for variable in layer.trainable_variables}
    return not own.isdisjoint(identities)


def _shapes(layer: keras.Layer) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in layer.trainable_variables]
