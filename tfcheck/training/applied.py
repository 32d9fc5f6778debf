"""What the optimizer was given, against what the tapes found.

A gradient that is right on the tape can still be handed over with the wrong variable, the wrong
sign or the wrong size, or not at all. Clipping and whatever else depends on the gradient's size is
a choice of the training step; a factor that stays the same wherever the model stands is not, unless
it undoes a factor of the loss, or averages over several tapes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from tfcheck.formats import FORMATS
from tfcheck.judge.judgement import Judgement
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict
from tfcheck.measure.directions import Array
from tfcheck.objective.objective import Objective
from tfcheck.objective.point import Base, as_floats

"""How far gradients that count as the same may be apart, by the precision of the objective."""


@dataclass(frozen=True)
class Handed:
    """One variable: what the tapes found for it, and what it is updated with.

    Attributes:
        tapes: the gradient of each tape that gave one, its loss scale undone.
        applied: what an optimizer was given, its loss scale undone, or what the step itself
            subtracts from the variable; None where there is nothing of the kind, or several.
        received: whether the variable is updated with anything.
        times: how often an optimizer was given the same.
        divisor: what the optimizer divides gradients by.
        by_hand: whether the step subtracts `applied` itself.
    """

    tapes: tuple[Array, ...]
    applied: Array | None
    received: bool
    times: int = 1
    divisor: float = 1.0
    by_hand: bool = False

    @property
    def total(self) -> Array:
        """The sum over the tapes."""
        return np.asarray(sum(self.tapes))

    def is_as_found(self, tolerance: float) -> bool:
        """Whether it is what a tape found, or the sum or the mean over the tapes."""
        if self.applied is None:
            return True
        candidates = [*self.tapes, self.total, self.total / len(self.tapes)]
        return any(same(self.applied, candidate, tolerance) for candidate in candidates)

    def factor(self, tolerance: float) -> float | None:
        """By what factor the sum over the tapes was multiplied; None where it is no multiple."""
        if self.applied is None or self.applied.shape != self.total.shape:
            return None
        square = float(np.vdot(self.total, self.total))
        if not square > 0:
            return None
        factor = float(np.vdot(self.applied, self.total)) / square
        return factor if same(self.applied, factor * self.total, tolerance) else None


def handed_over(objective: Objective, base: Base) -> dict[str, Handed]:
    """For each variable that a tape differentiates, by path, what became of its gradient.

    Args:
        objective: the training step.
        base: the point.
    """
    tapes: dict[str, list[Array]] = {}
    for parameter, gradient in zip(objective.parameters, base.gradients, strict=True):
        if gradient is not None and not parameter.within:
            scale = base.scales[parameter.loss]
            unscaled = gradient if scale == 1.0 else gradient / scale
            tapes.setdefault(parameter.path, []).append(unscaled)
    applied = _applied_at(objective, base)
    assigned = _assigned_at(objective, base)
    received = {p.path for p in objective.parameters if id(p.variable) in objective.facts.received}
    return {
        path: _handed(tuple(found), applied.get(path, []), assigned.get(path, []), path in received)
        for path, found in tapes.items()
    }


def _applied_at(objective: Objective, base: Base) -> dict[str, list[tuple[Array, float]]]:
    """What optimizers were given for each variable, by path.

    Each gradient, in float64, stands with what its optimizer divides it by.
    """
    path_of = {id(parameter.variable): parameter.path for parameter in objective.parameters}
    found: dict[str, list[tuple[Array, float]]] = {}
    given = zip(objective.facts.applied, base.applied, base.divisors, strict=False)
    for applied, value, divisor in given:
        path = path_of.get(id(applied.variable))
        if path is not None:
            found.setdefault(path, []).append((value, divisor))
    return found


def _assigned_at(objective: Objective, base: Base) -> dict[str, list[Array]]:
    """What the step itself subtracts from each variable that it assigns to, by path."""
    return {
        parameter.path: [
            objective.value(base, parameter) - as_floats(base.inputs[position])
            for position in parameter.inputs[1:]
        ]
        for parameter in objective.parameters
        if len(parameter.inputs) > 1
    }


def _handed(
    tapes: tuple[Array, ...],
    applied: list[tuple[Array, float]],
    assigned: list[Array],
    received: bool,
) -> Handed:
    """What became of one variable's gradient."""
    if not applied:
        once = assigned[0] if len(assigned) == 1 and not received else None
        return Handed(tapes, once, received or bool(assigned), by_hand=True)
    given, divisor = applied[0]
    if all(same(given, again, 1e-12) for again, _ in applied[1:]):
        once = given if divisor == 1 else given / divisor
        return Handed(tapes, once, True, len(applied), divisor)
    return Handed(tapes, None, True, divisor=divisor)


def misapplied(
    objective: Objective, base: Base, aside: Callable[[], Base | None], *, scaled_back: bool = False
) -> dict[str, Judgement]:
    """The variables that an optimizer was given a wrong gradient for, or none.

    Args:
        objective: the training step.
        base: the point.
        aside: gives another point, where gradients have other sizes; None where it cannot.
        scaled_back: whether constant factors are known to undo those of the loss. Defaults to
            False.

    Returns:
        A judgement by path; empty where every gradient that was applied belongs to its variable.
    """
    if not objective.facts.received and not objective.facts.updates:
        return {}
    here = handed_over(objective, base)
    tolerance = FORMATS[objective.facts.precision].same
    found: dict[str, Judgement] = {}
    scaled: dict[str, float] = {}
    for path, handed in here.items():
        if not handed.received:
            if objective.facts.updates and np.any(handed.total):
                found[path] = Judgement(Verdict.SUSPECT, Reason.MISAPPLIED, _NOT_RECEIVED)
            continue
        if handed.times > len(handed.tapes) and np.any(handed.total):
            found[path] = _wrong(f"The optimizer gets this gradient {handed.times} times.")
            continue
        if handed.is_as_found(tolerance) or not np.any(handed.total):
            continue
        factor = handed.factor(tolerance)
        note = _someone_elses(path, handed, factor, here, tolerance)
        if note:
            found[path] = _wrong(note)
        elif factor is not None and not handed.by_hand:
            scaled[path] = factor
    hidden = any(handed.received and handed.applied is None for handed in here.values())
    if objective.facts.dropped and not hidden:
        found = {**_forgotten(objective, base, here), **found}
    if not scaled_back:
        found |= _constantly(scaled, objective, base, aside)
    return found


def _forgotten(
    objective: Objective, base: Base, handed: Mapping[str, Handed]
) -> dict[str, Judgement]:
    """The variables for which one tape's gradient is applied, and another's is of no use."""
    tolerance = FORMATS[objective.facts.precision].same
    return {
        parameter.path: Judgement(Verdict.SUSPECT, Reason.MISAPPLIED, _NOT_USED)
        for parameter, gradient in zip(objective.parameters, base.gradients, strict=True)
        if parameter.loss in objective.facts.dropped and gradient is not None and np.any(gradient)
        for entry in [handed[parameter.path]]
        for applied in [entry.applied]
        if applied is not None and any(same(applied, g, tolerance) for g in entry.tapes)
        if not same(applied, gradient / base.scales[parameter.loss], tolerance)
    }


_NOT_USED = (
    "The gradient that a tape finds for this variable is made no use of: the optimizer receives "
    "another one."
)
_NOT_RECEIVED = (
    "A tape finds a gradient for this variable, but no optimizer receives it, so that the variable "
    "stays as it is."
)
_NEVER_SCALED = (
    "The optimizer divides gradients by its loss scale of {:g}, but the loss was not scaled by "
    "that. Call optimizer.scale_loss."
)


def _wrong(note: str) -> Judgement:
    return Judgement(Verdict.FAIL, Reason.MISAPPLIED, note)


def _someone_elses(
    path: str,
    handed: Handed,
    factor: float | None,
    everyone: Mapping[str, Handed],
    tolerance: float,
) -> str:
    """How a gradient that is not the variable's own came about, `""` if that is not known."""
    applied, own = handed.applied, handed.total
    if applied is None or applied.shape != own.shape:
        return ""
    if not np.any(applied):
        return "The optimizer gets zeros for this variable, whose gradient is not zero."
    own_multiple = factor is not None and factor > 0 and applied.size >= _TELLING
    if own_multiple:
        return ""
    others = {
        other: candidate
        for other, entry in everyone.items()
        if other != path
        for candidate in (*entry.tapes, entry.total)
        if candidate.shape == applied.shape and np.any(candidate)
    }
    for other, candidate in others.items():
        if _is_multiple(applied, candidate, tolerance):
            return f"The optimizer gets the gradient of {other} for this variable."
    if factor is not None and factor < 0:
        return "The optimizer gets this variable's gradient with the opposite sign."
    if own.ndim == 2 and own.shape == own.T.shape and _is_multiple(applied, own.T, tolerance):
        return "The optimizer gets this variable's gradient transposed."
    if applied.size >= _TELLING and same(np.sort(applied.ravel()), np.sort(own.ravel()), tolerance):
        return "The optimizer gets the entries of this variable's gradient in another order."
    for other, candidate in others.items():
        if applied.size >= _TELLING and _is_multiple(applied - own, candidate, tolerance):
            return f"The optimizer gets the gradient of {other} added to this variable's own."
    return ""


_TELLING = 4
"""Arrays of fewer entries are multiples of each other too easily."""


def _constantly(
    scaled: Mapping[str, float],
    objective: Objective,
    base: Base,
    aside: Callable[[], Base | None],
) -> dict[str, Judgement]:
    """Those of the scaled gradients that are scaled alike wherever the model stands."""
    tolerance = FORMATS[objective.facts.precision].same
    elsewhere = aside() if scaled else None
    if elsewhere is None:
        return {}
    there = handed_over(objective, elsewhere)
    found = {}
    for path, factor in scaled.items():
        again = there[path].factor(tolerance) if path in there else None
        if again is None or abs(again - factor) > tolerance * abs(factor):
            continue
        undone = (
            same_number(factor * weight, 1.0)
            for parameter in objective.parameters
            if parameter.path == path
            for weight in base.factors_of(parameter)
        )
        if any(undone):
            continue
        scale = there[path].divisor
        if scale != 1 and same_number(factor * scale, 1.0):
            found[path] = _wrong(_NEVER_SCALED.format(scale))
        else:
            count = len(there[path].tapes)
            of = f", summed over {count} tapes" if count > 1 else ""
            note = f"The optimizer gets {factor:.4g} times this variable's gradient{of}."
            found[path] = _wrong(note)
    return found


def same(one: Array, other: Array, tolerance: float) -> bool:
    """Whether two arrays are equal, up to a part of the larger norm."""
    if one.shape != other.shape:
        return False
    if np.array_equal(one, other):
        return True
    largest = max(float(np.linalg.norm(one)), float(np.linalg.norm(other)))
    return float(np.linalg.norm(one - other)) <= tolerance * largest


def same_number(one: float, other: float) -> bool:
    """Whether two numbers agree to float32 rounding."""
    return abs(one - other) <= 1e-5 * max(abs(one), abs(other))


def _is_multiple(one: Array, other: Array, tolerance: float) -> bool:
    """Whether an array is a positive multiple of another; the same, where it has few entries."""
    if one.size < _TELLING:
        return same(one, other, tolerance)
    square = float(np.vdot(other, other))
    factor = float(np.vdot(one, other)) / square if square else 0.0
    return factor > 0 and same(one, factor * other, tolerance)
