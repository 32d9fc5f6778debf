"""The step in the precision it trains in: losses and gradients, plain or compiled with XLA.

Everything else is measured in float64. What `fit` computes has less precision, and under
`jit_compile` another compiler; both are evaluated here, from the same traced graph, so that they
can be compared to it. A scaled loss is evaluated scaled, as it is trained, so that gradients
underflow and overflow where those of the training do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcheck.errors import TraceError, telling_line
from tfcheck.graph.excerpts import Excerpts, callable_part, import_tensors, weighted_total
from tfcheck.graph.nodes import output_refs
from tfcheck.internals import op_definition
from tfcheck.promote.purify import PureGraph, purify
from tfcheck.promote.types import RANDOM
from tfcheck.trace.recording import TapeCall

Trained = npt.NDArray[Any]
"""A gradient in the precision it trains in, half precision in float32: float64 would take twice
the memory."""


@dataclass(frozen=True)
class Evaluated:
    """Losses and gradients in the training precision, scaled where the loss is.

    Attributes:
        losses: value of each loss of the step.
        gradients: for each loss in turn the gradient of each source of its tape; None where the
            tape gave none, or where it was not asked for or cannot run.
    """

    losses: tuple[float, ...]
    gradients: tuple[Trained | None, ...]


class AsTrained:
    """A traced step in its own precision, as a function of the same plain tensors as in float64.

    Args:
        graph_def: `GraphDef` of the traced step.
        names: names of its inputs.
        variables: shape and dtype of the variable behind each captured handle, by placeholder name.
        calls: the tapes' calls of the step.
    """

    def __init__(
        self,
        graph_def: Any,
        names: Sequence[str],
        variables: Mapping[str, tf.TensorSpec],
        calls: Sequence[TapeCall],
    ) -> None:
        self._calls = calls
        pure = purify(graph_def, variables, _fetches(calls), promote=False)
        drawn = [ref for node in pure.graph_def.node for ref in _drawn_by(node)]
        self._drawn_within = any(
            RANDOM.match(node.op)
            for function in pure.graph_def.library.function
            for node in function.node_def
        )
        whole = tf.compat.v1.wrap_function(lambda: _imported(pure, calls, drawn), [])
        self._graph, self._outputs = whole.graph, whole.structured_outputs
        self._source = Excerpts(self._graph.as_graph_def())
        present = {node.name for node in pure.graph_def.node}
        self._inputs = [index for index, name in enumerate(names) if name in present]
        self._held = {ref: self._tensor(name) for ref, name in pure.drawn.items()}
        self._feeds = [
            *(self._tensor(f"{names[index]}:0") for index in self._inputs),
            *self._held.values(),
        ]
        already = set(pure.drawn.values())
        self._numbers = [self._tensor(name) for name in drawn if name not in already]
        self._functions: dict[str, Callable[..., Any]] = {}

    def _tensor(self, name: str) -> tf.Tensor:
        return self._graph.as_graph_element(name)

    def at(self, values: Sequence[Any], drawn: Mapping[str, tf.Tensor]) -> Evaluated:
        """Evaluate at a point.

        Args:
            values: a tensor for each of the inputs' names.
            drawn: the numbers that raw random operations drew, by the names of their tensors.
        """
        fed = self._fed(values, drawn)
        try:
            return self._evaluated(self._function("plain", self._feeds, self._outputs)(*fed))
        except tf.errors.OpError:
            pass  # a tape that cannot run is a finding of its own
        return self._evaluated({"losses": self._losses(fed), "gradients": None})

    def losses_at(self, values: Sequence[Any], drawn: Mapping[str, tf.Tensor]) -> tuple[float, ...]:
        """The losses alone at a point.

        Args:
            values: as for `at`.
            drawn: as for `at`.
        """
        return tuple(map(float, self._losses(self._fed(values, drawn))))

    def _losses(self, fed: Sequence[Any]) -> list[tf.Tensor]:
        return self._function("losses", self._feeds, self._outputs["losses"])(*fed)

    def compiled_at(self, values: Sequence[Any], drawn: Mapping[str, tf.Tensor]) -> Evaluated:
        """Evaluate at a point as `jit_compile=True` does.

        XLA draws other numbers from the same seeds, so it is given those that were drawn without.

        Args:
            values: as for `at`.
            drawn: as for `at`.

        Raises:
            TraceError: if XLA refuses the graph, or random numbers cannot be given to it.
        """
        if self._drawn_within:
            raise TraceError(
                "A step under XLA must draw random numbers outside of loops and functions. "
                "Received: random operations within, of which XLA draws other numbers. Draw them "
                "before."
            )
        fed = self._fed(values, drawn)
        numbers = self._function("numbers", self._feeds, self._numbers)(*fed)
        feeds = [*self._feeds, *self._numbers]
        try:
            compiled = self._function("compiled", feeds, self._outputs, jit_compile=True)
            return self._evaluated(compiled(*fed, *numbers))
        except (tf.errors.OpError, ValueError, NotImplementedError) as error:
            raise TraceError(
                f"XLA must be able to compile the training step. Received: {_refusal(error)}. "
                "Compile with jit_compile=False."
            ) from error

    def _fed(self, values: Sequence[Any], drawn: Mapping[str, tf.Tensor]) -> list[Any]:
        held = [tf.cast(drawn[ref], tensor.dtype) for ref, tensor in self._held.items()]
        return [*(values[index] for index in self._inputs), *held]

    def _function(
        self, kind: str, feeds: Sequence[tf.Tensor], fetches: Any, *, jit_compile: bool = False
    ) -> Callable[..., Any]:
        if kind not in self._functions:
            self._functions[kind] = callable_part(
                self._source, feeds, fetches, jit_compile=jit_compile
            )
        return self._functions[kind]

    def _evaluated(self, found: Mapping[str, Any]) -> Evaluated:
        rest = iter(found["gradients"] or ())
        known = found["gradients"] is not None
        return Evaluated(
            losses=tuple(float(loss) for loss in found["losses"]),
            gradients=tuple(
                None if gradient is None or not known else _array(next(rest))
                for call in self._calls
                for gradient in call.gradients
            ),
        )


def _fetches(calls: Sequence[TapeCall]) -> list[str]:
    """The names of the tensors that are wanted."""
    return [
        tensor.name
        for call in calls
        for tensor in (*call.targets, *call.output_gradients, *call.gradients)
        if tensor is not None
    ]


def _imported(
    pure: PureGraph, calls: Sequence[TapeCall], drawn: Sequence[str]
) -> dict[str, list[tf.Tensor]]:
    """Import a graph into the current one: the losses, and their gradients in turn.

    Args:
        pure: the graph.
        calls: the calls of tapes.
        drawn: the names of random numbers that are wanted, too.
    """
    tensors = import_tensors(pure.graph_def, [*pure.tensors.values(), *pure.drawn.values(), *drawn])

    def new(found: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
        return [None if t is None else tensors[pure.tensors[t.name]] for t in found]

    return {
        "losses": [
            weighted_total(_in_float64(new(call.targets)), _in_float64(new(call.output_gradients)))
            for call in calls
        ],
        "gradients": [
            tensor for call in calls for tensor in new(call.gradients) if tensor is not None
        ],
    }


def _drawn_by(node: Any) -> list[str]:
    """The tensors of random numbers that a node of a graph gives."""
    definition = op_definition(node.op) if RANDOM.match(node.op) else None
    return [] if definition is None else output_refs(node, definition, False)


def _refusal(error: Exception) -> str:
    """Why XLA refuses a graph, in a few words."""
    missing = dict.fromkeys(_MISSING.findall(str(error)))
    if missing:
        return f"XLA has no kernel for {', '.join(missing)}"
    return f"{type(error).__name__}: {_NODES.sub('', telling_line(str(error))).rstrip('. ')}"


_MISSING = re.compile(r"(\w+) \(No registered")
_NODES = re.compile(r"\[_XlaMustCompile[^\]]*\]|\{\{[^}]*\}\}")


def _in_float64(tensors: Sequence[tf.Tensor | None]) -> list[Any]:
    return [None if tensor is None else tf.cast(tensor, tf.float64) for tensor in tensors]


def _array(gradient: tf.Tensor) -> Trained:
    # NumPy has no bfloat16 of its own.
    halves = (tf.float16, tf.bfloat16)
    return np.asarray(tf.cast(gradient, tf.float32) if gradient.dtype in halves else gradient)
