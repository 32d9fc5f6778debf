"""Ordinary training steps: what `fit` pays for a callback that has no checkpoint to serve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tfcheck.scripts.bench.cases import Effort
from tfcheck.scripts.bench.processes import Answer, ask
from tfcheck.scripts.bench.results import Row, Subject
from tfcheck.scripts.bench.timing import once, quartiles


def fits(model: str, sizes: dict[str, Any], seconds: float, rounds: int) -> Answer:
    """Trainings without, with, and again without the callback, in many rounds.

    The one with it is compared with the mean of its neighbours, so that a machine that slows down
    evenly does not matter; the neighbours, with each other, tell what the comparison is worth.

    Args:
        model: see `cases.Case`.
        sizes: see `cases.Case`.
        seconds: about how long each training takes.
        rounds: how many.
    """
    import tensorflow as tf

    from tfcheck.callbacks import GradientCheck
    from tfcheck.scripts.bench.models import build

    built = build(model, sizes)
    callback = GradientCheck(built.x, built.y, start=False, steps=[10**9], tracking=None)

    def fit(steps: int, *callbacks: GradientCheck) -> float:
        dataset = tf.data.Dataset.from_tensors((built.x, built.y)).repeat(steps)
        return once(lambda: built.model.fit(dataset, verbose=0, callbacks=list(callbacks)))

    fit(50), fit(50, callback)
    steps = max(50, round(200 * seconds / fit(200)))
    with_it, without, again = [], [], []
    for _ in range(rounds):
        before, during, after = fit(steps), fit(steps, callback), fit(steps)
        without.append((before + after) / 2)
        with_it.append(during / without[-1])
        again.append(after / before)
    return {
        "step": quartiles(without)[1] / steps,
        "with": quartiles(with_it),
        "again": quartiles(again),
        "steps": steps,
    }


def rows(effort: Effort) -> Iterator[Row]:
    """The two small models, whose steps are the shortest."""
    rounds = 3 if effort.quick else 100
    for case in (effort.mlp, effort.cnn):
        answer = ask(
            "steps:fits",
            timeout=effort.timeout,
            **case.arguments,
            seconds=0.2 if effort.quick else 0.5,
            rounds=rounds,
        )
        step = answer.get("step")
        row = Row(case.label, "a step without the callback", step, runs=rounds)
        if step is None:
            yield row.replaced(note=answer["note"])
            continue
        low, middle, high = answer["again"]
        note = f"the same training twice; {_spread(low, high, rounds)}"
        yield row.replaced(ratio=middle, low=low, high=high, note=note)
        low, middle, high = answer["with"]
        note = f"{_spread(low, high, rounds)}; {answer['steps']} steps a training"
        row = row.replaced(what="a step with the callback", value=middle * step, own=True)
        yield row.replaced(ratio=middle, low=low, high=high, note=note).at_most(1.01, middle)


def _spread(low: float, high: float, rounds: int) -> str:
    """Quartiles, and the standard error of the median of a normal distribution that has them."""
    error = 1.2533 * (high - low) / 1.349 / rounds**0.5
    return f"quartiles {low:.3f} to {high:.3f}, standard error of the median {error:.4f}"


SUBJECT = Subject(
    name="steps",
    title="Ordinary steps",
    how="`fit` with the callback and no checkpoint to serve, and `fit` without it, in turns. "
    "Ratios are medians of rounds; the first row of each model compares trainings without the "
    "callback with each other.",
    ratio="× without",
    plotted="ratio",
    rows=rows,
)
