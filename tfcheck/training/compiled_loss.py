"""What is trained, against the loss the model was compiled with.

A `train_step` of one's own may compute any loss. But where its gradient is the compiled loss's but
for a factor, or but for the regularisation, something was forgotten or counted twice: chance does
not make two gradients agree so far. The gradients are compared rather than the losses, since
entries by the thousand leave no doubt, and what an optimizer receives as well as what a tape finds,
since a factor of the loss may have been undone on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np

from tfcheck.formats import FLOAT32, FORMATS
from tfcheck.judge.judgement import Judgement
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict
from tfcheck.measure.directions import Array
from tfcheck.objective.objective import Objective
from tfcheck.objective.point import Base
from tfcheck.trace.compiled_step import ADDED, DATA, PENALTIES
from tfcheck.training.applied import Handed, handed_over, same

_TELLING = 8
"""Fewer entries than this agree too easily."""


@dataclass(frozen=True)
class Comparison:
    """How what is trained compares with the compiled loss.

    Attributes:
        departures: for each variable that is concerned, by path, what was forgotten or counted
            twice.
        applied_as_compiled: whether the optimizers receive the gradient of the compiled loss.
        another: whether what is trained has little to do with the compiled loss.
    """

    departures: dict[str, Judgement] = field(default_factory=dict)
    applied_as_compiled: bool = False
    another: bool = False


@dataclass(frozen=True)
class _Part:
    """One part of the compiled loss: its value and its gradient for each variable, by path."""

    name: str
    value: float
    gradients: Mapping[str, Array]

    @property
    def flat(self) -> Array:
        return _flat(self.gradients)

    @property
    def is_output(self) -> bool:
        return self.name.startswith(f"{DATA} ")

    @property
    def is_meant(self) -> bool:
        """Whether it is part of the compiled loss, rather than an output's loss gone wrong."""
        return self.is_output or self.name in (PENALTIES, ADDED)


@dataclass(frozen=True)
class _Fit:
    """The compiled loss's parts in what is trained.

    Attributes:
        parts: the parts.
        weights: how often each is in it.
        ignored: what the compiled loss would take into account, `""` for nothing.
        hidden: whether some of what is applied could not be seen.
    """

    parts: tuple[_Part, ...]
    weights: tuple[float, ...]
    ignored: str
    hidden: bool


def compare(
    objective: Objective,
    compiled: Objective,
    parts: Sequence[str],
    here: tuple[Base, Base],
    aside: Callable[[], tuple[Base | None, Base | None]],
) -> Comparison:
    """Compare what is trained with the compiled loss.

    Args:
        objective: the training step.
        compiled: the step of a `tfcheck.trace.compiled_step.CompiledStep`.
        parts: what the losses of `compiled` are.
        here: the point, for each of the two.
        aside: gives both at another point, with other data. What departs there by another factor
            is a weight that the step chooses, such as a schedule's.
    """
    tolerance = max(FORMATS[objective.facts.precision].same, FORMATS[compiled.facts.precision].same)
    if objective.facts.islands or compiled.facts.islands:
        tolerance = max(tolerance, FLOAT32.same)
    fit = _fit(objective, compiled, parts, here, tolerance)
    if isinstance(fit, Comparison):
        return fit
    step, reference = aside()
    if step is not None and reference is not None:
        again = _fit(objective, compiled, parts, (step, reference), tolerance)
        loose = max(10 * tolerance, 1e-4)
        if (
            not isinstance(again, _Fit)
            or again.ignored != fit.ignored
            or not np.allclose(again.weights, fit.weights, rtol=loose, atol=loose)
        ):
            return Comparison()
    return Comparison(_judged(fit, tolerance))


def _fit(
    objective: Objective,
    compiled: Objective,
    names: Sequence[str],
    bases: tuple[Base, Base],
    tolerance: float,
) -> Comparison | _Fit:
    """What of the compiled loss is in what is trained; no fit where it is all, or unknown."""
    handed = handed_over(objective, bases[0])
    parts = [
        _part(compiled, bases[1], loss, name, handed.keys()) for loss, name in enumerate(names)
    ]
    if not handed or parts[0].gradients.keys() != handed.keys():
        return Comparison()
    meant = [part for part in parts if part.is_meant]
    whole = np.sum([part.flat for part in meant], axis=0)
    found = {path: entry.total for path, entry in handed.items()}
    applied = {path: entry.applied for path, entry in handed.items() if entry.applied is not None}
    if applied.keys() == found.keys() and same(_flat(applied), whole, tolerance):
        return Comparison(applied_as_compiled=True)
    if any(same(_flat(of_tape), whole, tolerance) for of_tape in (found, *_by_tape(handed))):
        return Comparison()
    as_found = all(entry.is_as_found(tolerance) for entry in handed.values())
    trained = applied if as_found and applied.keys() == found.keys() else found
    added = [part for part in meant if not part.is_output]
    for ignored, outputs in (
        ("", [part for part in meant if part.is_output]),
        *((part.name, [part]) for part in parts if not part.is_meant),
    ):
        weights = _fitted(trained, [*outputs, *added], tolerance)
        if weights is not None:
            # What is applied within a branch, as where steps accumulate, may be scaled there.
            hidden = any(entry.received and entry.applied is None for entry in handed.values())
            return _Fit((*outputs, *added), tuple(weights), ignored, hidden)
    return Comparison(another=True)


def _part(compiled: Objective, base: Base, loss: int, name: str, paths: Set[str]) -> _Part:
    gradients = {
        parameter.path: np.zeros(parameter.variable.shape) if gradient is None else gradient
        for parameter, gradient in zip(compiled.parameters, base.gradients, strict=True)
        if parameter.loss == loss and parameter.path in paths
    }
    return _Part(name, base.losses[loss], gradients)


def _by_tape(handed: Mapping[str, Handed]) -> list[dict[str, Array]]:
    """The gradients of each tape by itself, where several differentiate all variables."""
    counts = {len(entry.tapes) for entry in handed.values()}
    if len(counts) != 1:
        return []
    return [
        {path: entry.tapes[number] for path, entry in handed.items()}
        for number in range(counts.pop())
    ]


def _flat(gradients: Mapping[str, Array]) -> Array:
    return np.concatenate([gradients[path].ravel() for path in sorted(gradients)])


def _fitted(
    trained: Mapping[str, Array], parts: Sequence[_Part], tolerance: float
) -> list[float] | None:
    """How often each part is in what is trained; None where something else is in it, too."""
    wanted = _flat(trained)
    if wanted.size < _TELLING or not np.all(np.isfinite(wanted)):
        return None
    columns = [part.flat for part in parts]
    present = [number for number, column in enumerate(columns) if np.any(column)]
    if not present or not all(np.all(np.isfinite(column)) for column in columns):
        return None
    matrix = np.stack([columns[number] for number in present], axis=1)
    lengths = np.linalg.norm(matrix, axis=0)
    found, _, rank, _ = np.linalg.lstsq(matrix / lengths, wanted, rcond=1e-6)
    if rank < len(present) or not same(matrix / lengths @ found, wanted, tolerance):
        return None
    weights = [1.0] * len(parts)
    for number, value in zip(present, found / lengths, strict=True):
        weights[number] = float(value)
    return weights


def _judged(fit: _Fit, tolerance: float) -> dict[str, Judgement]:
    """Say what was forgotten or counted twice, for the variables that it concerns."""
    loose = max(10 * tolerance, 1e-4)
    weighted = list(zip(fit.parts, fit.weights, strict=True))
    outputs = [(part, weight) for part, weight in weighted if part.name not in (PENALTIES, ADDED)]
    scale = outputs[0][1]
    even = all(abs(weight - scale) <= loose * abs(scale) for _, weight in outputs)
    said, concerned = [], []
    if fit.ignored:
        said.append(f"ignores {fit.ignored}")
        concerned += [part for part, _ in outputs]
    if not even:
        times = ", ".join(f"{weight:.4g}" for _, weight in outputs)
        said.append(f"counts its outputs {times} times as much as the compiled loss")
        concerned += [part for part, weight in outputs if abs(weight - 1) > loose]
        scale = 1.0
    elif abs(scale - 1) > loose and not fit.hidden:
        said.append(f"is {scale:.4g} times the one that the model is compiled with")
        concerned += [part for part, _ in outputs]
    for part, weight in weighted[len(outputs) :]:
        times_as_much = weight / scale if scale else weight
        if abs(times_as_much - 1) <= loose or not np.any(part.flat):
            continue
        concerned.append(part)
        if abs(times_as_much) <= loose:
            said.append(f"lacks {part.value:.4g} of {part.name}")
        else:
            said.append(f"counts {part.value:.4g} of {part.name} {times_as_much:.4g} times")
    note = f"The tape's loss {' and '.join(said)}."
    return {
        path: Judgement(Verdict.SUSPECT, Reason.OTHER_LOSS, note)
        for path in fit.parts[0].gradients
        if said and any(np.any(part.gradients[path]) for part in concerned)
    }
