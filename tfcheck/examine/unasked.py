"""Variables that nothing was measured of: no tape is asked for them, or there is no tape."""

from __future__ import annotations

from typing import Any

import keras

from tfcheck.examine.finding import Finding, layer_of
from tfcheck.judge.judgement import Judgement
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict
from tfcheck.objective.objective import Objective
from tfcheck.variables import is_overwritten, unique_paths


def unchecked(model: keras.Layer) -> list[Finding]:
    """Findings for a model that cannot be checked at all: every variable stays open."""
    return _of_all(model, Judgement(Verdict.INCONCLUSIVE, Reason.UNCHECKED))


def never_trained(model: keras.Layer) -> list[Finding]:
    """Findings for a model whose training step trains nothing at all."""
    note = "The training step finds no gradient for any variable, and changes none."
    return _of_all(model, Judgement(Verdict.FAIL, Reason.UNTRAINED, note))


def _of_all(model: keras.Layer, judgement: Judgement) -> list[Finding]:
    """The same finding for each variable of a model that is trained by its gradients."""
    return [
        _unmeasured(variable.path, tuple(variable.shape), judgement)
        for variable in model.trainable_variables
        if not is_overwritten(variable)
    ]


def untrained(objective: Objective) -> list[Finding]:
    """Findings for variables that a loss depends on and that no tape is asked for."""
    note = (
        "A tape's loss depends on this variable, but no tape is asked for its gradient, so that it "
        "stays as it is. Where that is meant, set trainable = False."
    )
    judgement = Judgement(Verdict.SUSPECT, Reason.UNTRAINED, note)
    paths = unique_paths([*differentiated(objective), *objective.facts.left_out])
    return [
        _unmeasured(paths[id(variable)], tuple(variable.shape), judgement)
        for variable in objective.facts.left_out
    ]


def untracked(objective: Objective) -> list[Finding]:
    """Findings for variables that layers of the model use, and that are no weights of it."""
    return [
        Finding(
            path=f"{found.layer}/{found.name}",
            layer=found.layer,
            shape=found.shape,
            judgement=Judgement(
                Verdict.SUSPECT,
                Reason.UNTRACKED,
                f"It is used{f' at {found.place}' if found.place else ''}, and Keras neither "
                "trains nor saves it.",
            ),
        )
        for found in objective.facts.untracked
        if found.layer
    ]


def differentiated(objective: Objective) -> list[Any]:
    """The variables that tapes differentiate."""
    return [parameter.variable for parameter in objective.parameters if not parameter.within]


def _unmeasured(path: str, shape: tuple[int, ...], judgement: Judgement) -> Finding:
    return Finding(path, layer_of(path), shape, judgement)
