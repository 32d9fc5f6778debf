"""Collecting what a test of a culprit needs, while the model stands where it was found."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras

from tfcheck.deadline import Deadline
from tfcheck.errors import ReproductionError, TfcheckError, first_line, received
from tfcheck.graph.division import LOSS
from tfcheck.internals import sublayers
from tfcheck.reproduce.evidence import Evidence
from tfcheck.reproduce.importable import Importable, importable, qualified
from tfcheck.reproduce.plain_calls import MOST_BYTES, as_array, given_in, too_large
from tfcheck.reproduce.recipe import recipe_of
from tfcheck.reproduce.witness import Noted, Witness, seen
from tfcheck.settings import Settings
from tfcheck.trace.batch import Batch
from tfcheck.trace.steps import Step
from tfcheck.variables import path_of

_MOST_CULPRITS = 8
"""Many that are wrong are wrong alike, and what is kept of each takes memory."""

_OF_LOSSES = ("y_true", "y_pred", "sample_weight")


@dataclass(frozen=True)
class Collector:
    """Collects evidence on the culprits of one check.

    Args:
        step: the step.
        batch: the debug batch.
        settings: the options of the check.
        moment: when the check is, in words.
        deadline: when it has to end.
    """

    step: Step
    batch: Batch
    settings: Settings
    moment: str
    deadline: Deadline

    def on(self, culprits: Sequence[str]) -> tuple[Evidence, ...]:
        """What there is on culprits: of each, how to make it again, or why that cannot be.

        Args:
            culprits: their paths.

        Raises:
            TimeIsUpError: if there is no time to see what they are given.
        """
        known = {path: self._made_again(path) for path in culprits[:_MOST_CULPRITS]}
        known |= {path: self._one_too_many(path) for path in culprits[_MOST_CULPRITS:]}
        layers = {path: self._layer(path) for path, one in known.items() if not one.refusal}
        if not layers:
            return tuple(known.values())
        self.deadline.require_time()
        watched = {id(layer) for layer in layers.values()}
        try:
            witness = seen(self.step, self.batch, watched, losses=LOSS in layers)
        except Exception as error:  # noqa: BLE001 - whatever another run of the step raises
            said = received(error) if isinstance(error, TfcheckError) else first_line(error)
            return tuple(
                one if one.refusal else replace(one, refusal=_unseen(path, said))
                for path, one in known.items()
            )
        return tuple(
            found
            for path, one in known.items()
            for found in (
                self._of_losses(one, witness)
                if one.is_loss
                else [self._of_layer(one, layers.get(path), witness)]
            )
        )

    def _layer(self, path: str) -> keras.Layer | None:
        """The layer of a path."""
        layers = sublayers(self.step.owner)
        return next((layer for layer in layers if path_of(layer) == path), None)

    def _made_again(self, path: str) -> Evidence:
        """How a culprit can be made again, or why not."""
        evidence = Evidence(
            path, _name_of(path, self.step.owner), self.settings, self.moment, path == LOSS
        )
        if evidence.is_loss:
            return evidence
        layer = self._layer(path)
        if layer is None:
            return replace(evidence, refusal=_no_unit(path))
        try:
            return replace(evidence, recipe=recipe_of(layer))
        except ReproductionError as error:
            return replace(evidence, refusal=str(error))

    def _one_too_many(self, path: str) -> Evidence:
        name = _name_of(path, self.step.owner)
        said = (
            f"Tests are made of at most {_MOST_CULPRITS} culprits of a check. Received: {path}, "
            "which is behind so many. Mend those first, and check again."
        )
        return Evidence(path, name, self.settings, self.moment, refusal=said)

    def _of_layer(
        self, evidence: Evidence, layer: keras.Layer | None, witness: Witness
    ) -> Evidence:
        if evidence.refusal:
            return evidence
        weights = tuple(as_array(weight) for weight in layer.weights) if layer else ()
        if sum(weight.nbytes for weight in weights) > MOST_BYTES:
            return replace(evidence, refusal=too_large(evidence.culprit, "weights"))
        return _with_calls(evidence, witness.of(layer), weights=weights)

    def _of_losses(self, evidence: Evidence, witness: Witness) -> list[Evidence]:
        """Evidence on each loss of the user's own."""
        calls = {id(call.callee): call for call in witness.calls if _own_part(call.callee)}
        found = []
        for call in calls.values():
            own = _own_part(call.callee)
            whole = own is call.callee
            name = _name_of(getattr(own, "__name__", type(own).__name__), self.step.owner)
            named = replace(evidence, name=name)
            try:
                how = {"recipe": recipe_of(own)} if whole else {"function": _place(own)}
                found.append(_with_calls(named, [_as_of_loss(call, weighted=whole)], **how))
            except ReproductionError as error:
                found.append(replace(named, refusal=str(error)))
        return found or [replace(evidence, refusal=_no_unit(LOSS))]


def _own_part(callee: Any) -> Any:
    """What of a loss is the user's: itself, or the function that it wraps; None for a layer."""
    if isinstance(callee, keras.Layer):
        return None
    if _is_own(type(callee)):
        return callee
    function = getattr(callee, "fn", None)
    return function if function is not None and _is_own(function) else None


def _as_of_loss(call: Noted, *, weighted: bool) -> Noted:
    """A loss's call with its targets and predictions by position, and sample weights by name."""
    given = {**dict(zip(_OF_LOSSES, call.args, strict=False)), **call.kwargs}
    weight = given.get("sample_weight")
    named = {"sample_weight": weight} if weighted and weight is not None else {}
    names = _OF_LOSSES[:2]
    return replace(call, names=names, args=tuple(given[n] for n in names), kwargs=named)


def _with_calls(evidence: Evidence, calls: Sequence[Noted], **fields: Any) -> Evidence:
    """Evidence with the calls that can be kept; a refusal where there are none."""
    given, refusals = [], [_unseen(evidence.culprit, "it was not called")] if not calls else []
    for call in calls:
        try:
            given.append(given_in(call, evidence.culprit))
        except ReproductionError as error:
            refusals.append(str(error))
    if not given:
        return replace(evidence, refusal=refusals[0])
    return replace(evidence, calls=tuple(given), **fields)


def _place(function: Callable[..., Any]) -> Importable:
    return importable(*qualified(function), function)


def _is_own(thing: Any) -> bool:
    """Whether a class, an instance or a function is the user's, rather than Keras's."""
    return str(getattr(thing, "__module__", "")).partition(".")[0] != "keras"


def _name_of(path: str, owner: keras.Layer) -> str:
    """A name for files and functions."""
    own = path.removeprefix(f"{owner.name}/")
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", own)
    return re.sub(r"\W+", "_", snake).strip("_").lower() or "layer"


def _no_unit(path: str) -> str:
    return (
        f"A test must be of a layer or of a loss of its own. Received: {path}, where what is wrong "
        "is in no such unit. Move it into a keras.Layer or a keras.losses.Loss, or test the whole "
        "with tfcheck.check_gradients."
    )


def _unseen(path: str, why: str) -> str:
    return (
        f"A test must have the inputs that its layer saw. Received: {path}, and a step that does "
        f"not tell them ({why}). Check the layer with tfcheck.check_layer."
    )
