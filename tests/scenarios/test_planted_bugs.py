"""Wrong gradients, planted one at a time: each must be found where it is and nowhere else.

The models are in the files `wrong_*.py` beside this one, by theme.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from figures import count
from fingerprint import nothing_changes
from wrong import NOT_YET, PLANTED, Build, Call, Plant, handing

from tfcheck import GradientReport, Thresholds, Verdict, check_gradients
from tfcheck.judge.reasons import OF_THE_STEP

for theme in sorted(Path(__file__).parent.glob("wrong_*.py")):
    importlib.import_module(theme.stem)

LINE = "planted gradient bugs: {found} of {planted} found, {named} named"


def examine(build: Build) -> tuple[Plant, GradientReport]:
    """Plant a bug and check; the check must leave no trace."""
    keras.utils.set_random_seed(11)
    plant = build(np.random.default_rng(5))
    with nothing_changes(plant.model, plant.options):
        report = check_gradients(
            plant.model, plant.x, plant.y, plant.sample_weight, **plant.options
        )
    return plant, report


@pytest.mark.parametrize("name", PLANTED)
def test_planted(name: str, request: pytest.FixtureRequest) -> None:
    """A wrong gradient fails in exactly the variables it reaches, and its layer is named.

    Where the step is at fault, what the tape finds is right all the same.
    """
    plant, report = examine(PLANTED[name])
    failing = {v.path for v in report.variables if v.verdict is not Verdict.PASS}
    found = failing == plant.wrong
    named = found and report.culprits == plant.culprits
    count(request, LINE, planted=1, found=found, named=named)
    assert failing == plant.wrong, str(report)
    assert report.verdict is plant.verdict, str(report)
    assert report.culprits == plant.culprits, str(report)
    for variable in report.variables:
        if variable.path in plant.wrong:
            assert variable.verdict is plant.verdict, str(report)
            assert variable.reason == plant.reason, str(report)
            if variable.reason == "":
                assert variable.score - variable.error_bar >= Thresholds().concerning
            elif variable.reason in OF_THE_STEP:
                assert not variable.score >= Thresholds().concerning, str(report)


@pytest.mark.parametrize(
    "change",
    [
        lambda g: [tf.clip_by_value(x, -0.01, 0.01) for x in g],
        lambda g: [tf.clip_by_norm(x, 0.1) for x in g],
        lambda g: tf.clip_by_global_norm(g, 0.1)[0],
        lambda g: g,
    ],
    ids=["clipped", "normed", "normed together", "as they are"],
)
def test_a_choice_of_the_step_is_no_bug(change: Call) -> None:
    """Clipping gradients on their way to the optimizer is a choice, and passes."""
    keras.utils.set_random_seed(11)
    rng = np.random.default_rng(5)
    report = check_gradients(handing(change), rng.normal(size=(6, 3)), rng.normal(size=(6, 3)))
    assert report.verdict is Verdict.PASS, str(report)
    assert report.culprits == ()


@pytest.mark.parametrize("name", NOT_YET)
def test_what_is_wrong_as_soon_as_a_gradient_goes_there(name: str) -> None:
    """Where the loss hands no gradient back yet, a wrong layer makes those before it suspect."""
    keras.utils.set_random_seed(3)
    plant = NOT_YET[name](np.random.default_rng(3))
    report = check_gradients(plant.model, plant.x, plant.y)
    assert report.verdict is Verdict.SUSPECT, str(report)
    suspects = {v.path for v in report.variables if v.verdict is Verdict.SUSPECT}
    assert suspects == plant.wrong, str(report)
    assert report.culprits == plant.culprits, str(report)
    assert all("as soon as the loss does" in v.note for v in report.variables if v.path in suspects)
