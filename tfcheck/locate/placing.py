"""Findings and culprits, with the lines of the user's code that they are about."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfcheck.errors import some
from tfcheck.examine.examination import JUMPING, Examination, Finding
from tfcheck.graph.division import LOSS, OUTSIDE, name_of
from tfcheck.internals import sublayers
from tfcheck.judge.judgement import BLOCKING
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict
from tfcheck.locate.stops import Stop, Way, has_custom_gradient, with_bodies
from tfcheck.objective.point import Parameter
from tfcheck.report.rows import VariableReport
from tfcheck.trace.listening import TapeCall
from tfcheck.trace.source_lines import (
    Place,
    described,
    function_called,
    place_of,
    place_of_custom_gradient,
    place_of_function,
)
from tfcheck.trace.steps import Step

_WHOLE_STEP = ("train_step", "loss")
_MOST_NAMED = 3


class Placing:
    """The lines that the findings of one check are about.

    Args:
        examination: the examination of the step.
        step: the step.
        culprits: the paths of what is wrong by itself.
    """

    def __init__(self, examination: Examination, step: Step, culprits: Sequence[str]) -> None:
        self._examination = examination
        self._objective = examination.objective
        self._owner = step.owner
        self._outside = any(path in _WHOLE_STEP for path in culprits)
        self._ways: dict[int, Way] = {}

    def told(self, finding: Finding) -> Finding:
        """A finding, with the line that is to blame in its note, where one is known."""
        report = finding.report
        if report.verdict not in (Verdict.FAIL, Verdict.SUSPECT):
            return finding
        note = {
            "": self._with_what_is_lost,
            Reason.BLOCKED: self._with_what_blocks,
            Reason.MISAPPLIED: self._with_where_applied,
            Reason.OTHER_LOSS: self._with_where_asked,
            Reason.UNTRAINED: self._with_where_asked,
        }.get(report.reason, _as_it_is)(report)
        return replace(finding, report=replace(report, note=note))

    # -- blocked -------------------------------------------------------------------------------

    def _with_what_blocks(self, report: VariableReport) -> str:
        found = [
            self._named(stop, call)
            for position, parameter in self._parameters(report)
            if self._is_silent(position)
            for stop, call in self._stops(parameter)
        ]
        if not found:
            return report.note
        named = _listed(found)
        told = report.note.replace(BLOCKING, named).replace(JUMPING, named)
        # What the tape raises says nothing of where.
        return told if told != report.note else f"{report.note} It is blocked by {named}."

    def _with_what_is_lost(self, report: VariableReport) -> str:
        """The note on a gradient of which a part is lost, where that is outside of all layers."""
        if not self._outside:
            return report.note
        held = {tensor.op.name for tensors in self._objective.facts.constants for tensor in tensors}
        found = [
            self._named(stop, call)
            for _, parameter in self._parameters(report)
            for stop, call in self._stops(parameter)
            if (stop.unrecorded and stop.operation.name not in held)
            or function_called(stop.operation) == "stop_gradient"
        ]
        if not found:
            return report.note
        return f"{report.note} A part of the gradient is blocked by {_listed(found)}.".lstrip()

    def _is_silent(self, position: int) -> bool:
        gradient = self._examination.base.gradients[position]
        return gradient is None or not np.any(gradient)

    def _parameters(self, report: VariableReport) -> Iterator[tuple[int, Parameter]]:
        """What the step's tapes differentiate for under this path, with its position."""
        for position, parameter in enumerate(self._objective.parameters):
            if parameter.path == report.path:
                yield position, parameter

    def _stops(self, parameter: Parameter) -> Iterator[tuple[Stop, TapeCall]]:
        call = self._objective.traced.call(parameter.loss)
        start = None if call is None else self._objective.traced.start(parameter)
        if call is None or start is None:
            return
        if parameter.loss not in self._ways:
            self._ways[parameter.loss] = Way(call.targets, call.spans)
        for stop in self._ways[parameter.loss].stops(start):
            yield stop, call

    def _named(self, stop: Stop, call: TapeCall) -> str:
        """An operation to a reader: its type, and its line or else its layer."""
        operation = stop.operation
        unit = "" if call.division is None else call.division.path_of(operation)
        name = described(operation, name_of(unit))
        written = place_of_custom_gradient(operation) if has_custom_gradient(operation) else None
        if written is not None:
            name = f"the gradient written at {written.quoted}"
        elif operation.type.startswith("Assign"):
            variable = self._objective.traced.variable_behind(operation.inputs[0])
            name = name.replace(f"`{operation.type}`", f"the assignment to {variable}")
        return f"{name}{', outside of the tape' if stop.unrecorded else ''}"

    # -- what becomes of the gradient ----------------------------------------------------------

    def _with_where_applied(self, report: VariableReport) -> str:
        variables = {id(parameter.variable) for _, parameter in self._parameters(report)}
        handed = [a.place for a in self._objective.facts.applied if id(a.variable) in variables]
        if told := _places(handed):
            return f"{report.note} Gradients are applied at {told}."
        if told := _places(map(place_of, self._assignments(report))):
            return f"{report.note} It is assigned at {told}."
        return self._with_where_asked(report)

    def _assignments(self, report: VariableReport) -> Iterator[tf.Operation]:
        """The operations with which the step itself updates a variable."""
        for _, parameter in self._parameters(report):
            call = self._objective.traced.call(parameter.loss)
            handle = None if call is None else self._objective.traced.start(parameter)
            for operation in () if call is None else call.targets[0].graph.get_operations():
                if operation.type.startswith("Assign") and operation.inputs[0] is handle:
                    yield operation

    def _with_where_asked(self, report: VariableReport) -> str:
        losses = {parameter.loss for _, parameter in self._parameters(report)}
        asked = self._objective.facts.asked_at
        told = _places(asked[loss] for loss in sorted(losses) or range(len(asked)))
        return f"{report.note} The tape is asked for gradients at {told}." if told else report.note

    # -- culprits ------------------------------------------------------------------------------

    def of_culprit(self, path: str) -> str:
        """Where a culprit is defined, as in `"train.py:12 in call"`; `""` where that is unknown.

        Args:
            path: its path.
        """
        made = list(self._made_in(path))
        by_hand = [place_of_custom_gradient(o) for o in made if has_custom_gradient(o)]
        places = list(dict.fromkeys(place for place in by_hand if place is not None))
        if len(places) == 1:
            return str(places[0])
        outside = path in _WHOLE_STEP
        candidates = itertools.chain(
            map(place_of_function, _functions_of(self._layers.get(path))),
            [where_step_is(self._owner, path)] if outside else [],
            (place_of(operation, in_its_layer=not outside) for operation in made),
        )
        return str(next(filter(None, candidates), ""))

    @cached_property
    def _layers(self) -> dict[str, keras.Layer]:
        return {layer.path or layer.name: layer for layer in sublayers(self._owner)}

    def _made_in(self, path: str) -> Iterator[tf.Operation]:
        """The operations of a layer's own, or of what is in none, in the graph that is traced."""
        units = {path, LOSS, OUTSIDE} if path in _WHOLE_STEP else {path}
        for loss in range(self._objective.loss_count):
            call = self._objective.traced.call(loss)
            if call is not None and call.division is not None:
                for operation in call.targets[0].graph.get_operations():
                    if call.division.path_of(operation) in units:
                        yield from with_bodies(operation)


def where_step_is(owner: keras.Layer, path: str) -> Place | None:
    """Where a model's own `train_step` or loss is defined; None where it has none of its own.

    Args:
        owner: the model.
        path: `"train_step"` or `"loss"`.
    """
    method = getattr(type(owner), "train_step" if path == "train_step" else "compute_loss", None)
    return None if method is None else place_of_function(method)


def _functions_of(layer: keras.Layer | None) -> list[Callable[..., Any]]:
    """What a layer computes with: the function of a `Lambda`, and its `call`."""
    if layer is None:
        return []
    functions = [layer.function] if isinstance(layer, keras.layers.Lambda) else []
    return [*functions, type(layer).call]


def _as_it_is(report: VariableReport) -> str:
    return report.note


def _places(places: Iterable[Place | None]) -> str:
    found = dict.fromkeys(place.quoted for place in places if place is not None)
    return _listed(list(found))


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence, each once."""
    names = list(dict.fromkeys(names))
    if len(names) > _MOST_NAMED:
        return some(names, _MOST_NAMED)
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
