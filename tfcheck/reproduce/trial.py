"""Trying out a test of a culprit before anyone is given it: it must fail today."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from tfcheck.errors import ReproductionError, TfcheckError, first_line, received
from tfcheck.judge.verdict import Verdict
from tfcheck.report.outcome import Outcome
from tfcheck.report.reproduction import Reproduction
from tfcheck.reproduce.evidence import Evidence, Given, filled
from tfcheck.reproduce.importable import Importable
from tfcheck.reproduce.plain_calls import first_samples
from tfcheck.reproduce.source import config_is_long, unit_test
from tfcheck.settings import Settings
from tfcheck.trace.batch import Batch
from tfcheck.trace.layer_call import layer_call
from tfcheck.trace.steps import Step
from tfcheck.unchanged.unchanged import all_unchanged

_SMALL = 2**20
"""A file of at most so many bytes goes well with a test: longer batches are cut where that does."""


Check = Callable[[Step, Batch, Settings], Outcome]
"""Checks a call of a layer by itself."""


@dataclass(frozen=True)
class Trial:
    """One way to call a culprit in a test.

    Attributes:
        given: the call.
        arrays: the arrays that it is given.
        own_gradients: whether its outputs are weighted with the gradients that they had.
    """

    given: Given
    arrays: Mapping[str, npt.NDArray[Any]]
    own_gradients: bool


def reproduced(evidence: Evidence, check: Check) -> Reproduction:
    """A test that fails as long as a culprit is wrong.

    Args:
        evidence: what is known of it.
        check: checks a call of a layer by itself.

    Raises:
        ReproductionError: if none does: by itself, and with what it was given, it passes.
    """
    said = "its backward pass is the derivative of its forward pass"
    for trial in _trials(evidence):
        try:
            if _fails(evidence, trial, check):
                return _written(evidence, trial)
        except ReproductionError:
            raise
        except TfcheckError as error:
            said = received(error)
        except Exception as error:  # noqa: BLE001 - code of the user's, run where it was not before
            said = f"{type(error).__name__}: {first_line(error)}"
    raise ReproductionError(
        f"A test must fail before its layer is mended. Received: {evidence.culprit}, which does "
        f"not fail by itself, made anew and given what it was given ({said}). Test the whole model "
        "with tfcheck.check_gradients."
    )


def _trials(evidence: Evidence) -> Iterator[Trial]:
    for given in evidence.calls:
        small = first_samples(given.arrays, _SMALL)
        if small is not None and small is not given.arrays:
            yield Trial(given, small, own_gradients=False)
        yield Trial(given, given.arrays, own_gradients=False)
        if given.gradients is not None:
            yield Trial(given, given.arrays, own_gradients=True)


def _fails(evidence: Evidence, trial: Trial, check: Check) -> bool:
    """Whether a culprit, made anew, fails."""
    take = trial.arrays.__getitem__
    args, kwargs = (filled(part, take) for part in (trial.given.args, dict(trial.given.kwargs)))
    gradients = filled(trial.given.gradients, take) if trial.own_gradients else None
    with all_unchanged(*_code_of(evidence)):
        made = evidence.recipe.made() if evidence.recipe else _places(evidence)[0].found
        if evidence.is_loss:
            made, args, kwargs = _as_layer(made, args, kwargs)
        elif evidence.weights:
            if len(made.weights) < len(evidence.weights):
                made(*args, **kwargs)
            made.set_weights(evidence.weights)
        step, batch = layer_call(made, args, kwargs, gradients, trial.given.phase)
        verdict = check(step, batch, evidence.settings).verdict
        return verdict in (Verdict.FAIL, Verdict.SUSPECT)


def _code_of(evidence: Evidence) -> list[Any]:
    """The user's code that is run."""
    return [place.found for place in _places(evidence)]


def _places(evidence: Evidence) -> list[Importable]:
    named = list(evidence.recipe.places.values()) if evidence.recipe else []
    return [*named, *([evidence.function] if evidence.function else [])]


def _as_layer(
    loss: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[keras.Layer, tuple[Any, ...], dict[str, Any]]:
    """A loss as a layer of the predictions."""
    y_true, y_pred = args
    layer = keras.layers.Lambda(lambda predictions: loss(y_true, predictions, **kwargs))
    return layer, (y_pred,), {}


def _written(evidence: Evidence, trial: Trial) -> Reproduction:
    """The files of a trial that fails."""
    arrays: dict[str, Any] = {name: trial.arrays[name] for name in _used(trial)}
    arrays |= {f"weight_{number}": weight for number, weight in enumerate(evidence.weights)}
    if config_is_long(evidence) and evidence.recipe is not None:
        arrays["config"] = np.array(evidence.recipe.config)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    places = _places(evidence)
    found = Reproduction(evidence.culprit, evidence.name, "", content.getvalue())
    source = unit_test(evidence, trial.given, found.inputs_file, own_gradients=trial.own_gradients)
    folders = dict.fromkeys(place.folder for place in places if place.folder)
    return replace(found, source=source, folders=tuple(folders))


def _used(trial: Trial) -> list[str]:
    """The names of the arrays that a trial needs."""
    own = trial.given.gradients or ()
    left_out = set() if trial.own_gradients else {gradient.name for gradient in own}
    return [name for name in trial.arrays if name not in left_out]
