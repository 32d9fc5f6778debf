"""The functions that a graph calls, as they were and as they go into the new graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfcheck.graph.nodes import called_functions


class Library:
    """The functions of a graph.

    Args:
        given: the functions as they were, by name.

    Attributes:
        given: the functions as they were, by name.
        finished: those of the new graph, by name.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.given = given
        self.finished: dict[str, Any] = {}

    def add(self, function: Any) -> None:
        """Add a function to the new graph."""
        self.finished[function.signature.name] = function

    def keep_called(self, node: Any) -> bool:
        """Take over all that a node calls as it is, and tell whether it calls anything."""
        called = list(called_functions(node))
        for name in called:
            self._keep(name)
        return bool(called)

    def _keep(self, name: str) -> None:
        if name in self.finished or name not in self.given:
            return
        self.finished[name] = self.given[name]
        for node in self.given[name].node_def:
            self.keep_called(node)
