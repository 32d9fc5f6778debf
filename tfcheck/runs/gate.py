"""The gate: may what a run has trained be released, as far as its gradient checks go?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tfcheck.judge.verdict import Verdict
from tfcheck.runs.age import Training, why_older
from tfcheck.runs.record import FIRST, Check, RunRecord


@dataclass(frozen=True, slots=True)
class Demands:
    """What is asked of the checks of a run.

    Attributes:
        min_coverage: the least share of the variables that each last check must have compared.
        allow_suspect: whether suspect gradients may pass.
        require_epochs: there must be a check after each of these epochs that passed.
    """

    min_coverage: float = 0.9
    allow_suspect: bool = False
    require_epochs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether what was trained may pass.

    Attributes:
        subject: what was asked for: a run, an experiment or a version of a registered model.
        passed: whether it may.
        reasons: why not, a sentence each; empty where it may.
        run_id: the run that trained it; `""` where there is none.
        run_name: the name of that run.
        verdict: the worst verdict of the run's checks; None where there was none.
        coverage: the smallest share of variables that one of the last checks compared; None where
            that is unknown.
        last_check: when the last check was, such as `"epoch 5 (step 285)"`; `""` without one.
    """

    subject: str
    passed: bool
    reasons: tuple[str, ...]
    run_id: str = ""
    run_name: str = ""
    verdict: Verdict | None = None
    coverage: float | None = None
    last_check: str = ""

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        if not self.passed:
            return f"{self.subject} does not pass: {' '.join(self.reasons)}"
        known = (
            "" if self.coverage is None else f", which compared {self.coverage:.0%} of variables"
        )
        return f"{self.subject} passes: {self.verdict} at {self.last_check}{known}."


@dataclass(frozen=True, slots=True)
class Case:
    """What a gate looks at.

    Attributes:
        subject: what was asked for.
        run: the run that trained it; None where it is unknown.
        training: how far that training went.
    """

    subject: str
    run: RunRecord | None
    training: Training = field(default_factory=Training)


def judged(case: Case, demands: Demands) -> Gate:
    """Judge a training by its checks."""
    run = case.run
    if run is None:
        reason = "It names no run that trained it, so no check of that training is known."
        return Gate(case.subject, False, (reason,))
    if not run.checks:
        reason = f"The training of run {run.label} was never checked."
        return Gate(case.subject, False, (reason,), run.run_id, run.label)
    last = _last_checks(run)
    reasons = (
        *_what_is_wrong(run, demands),
        *_what_is_unknown(last),
        *_what_is_old(last, case.training),
        *_what_is_left_out(last, demands),
        *_epochs_without(run, demands),
    )
    shares = [check.coverage for check in last if check.coverage is not None]
    return Gate(
        subject=case.subject,
        passed=not reasons,
        reasons=reasons,
        run_id=run.run_id,
        run_name=run.label,
        verdict=run.verdict,
        coverage=min(shares, default=None),
        last_check=max(last, key=lambda check: check.made_at or check.step).moment,
    )


def _last_checks(run: RunRecord) -> tuple[Check, ...]:
    """The last check of each callback."""
    return tuple({check.name: check for check in run.checks}.values())


def _what_is_wrong(run: RunRecord, demands: Demands) -> Iterator[str]:
    """A gradient that was wrong at any time has trained the model."""
    for verdict, allowed in ((Verdict.FAIL, False), (Verdict.SUSPECT, demands.allow_suspect)):
        found = [check for check in run.checks if check.verdict is verdict]
        if not found or allowed:
            continue
        layers = list(dict.fromkeys(_named(check, verdict) for check in found))
        named = ", ".join(filter(None, layers))
        state = "wrong" if verdict is Verdict.FAIL else "suspect"
        times = f"in {len(found)} of {len(run.checks)} checks, first at {found[0].moment}"
        yield f"A gradient is {state} {times}{f' ({named})' if named else ''}."


def _named(check: Check, verdict: Verdict) -> str:
    layers = [layer for layer in check.layers if check.finding(layer) == verdict]
    return ", ".join(check.culprits or layers[:3])


def _what_is_unknown(last: tuple[Check, ...]) -> Iterator[str]:
    """Of each callback, the last check must have known the answer."""
    for check in last:
        if check.verdict is Verdict.ERROR:
            yield f"The last check{_of(check)}, at {check.moment}, could not be made."
        elif check.verdict is Verdict.INCONCLUSIVE:
            yield f"The last check{_of(check)}, at {check.moment}, could not judge every gradient."


def _what_is_old(last: tuple[Check, ...], training: Training) -> Iterator[str]:
    for check in last:
        if reason := why_older(check, training):
            last_one = f"The last check{_of(check)}, at {check.moment},"
            yield f"{last_one} is older than the model: {reason}."


def _what_is_left_out(last: tuple[Check, ...], demands: Demands) -> Iterator[str]:
    for check in last:
        if check.coverage is None:
            if check.verdict is not Verdict.ERROR:
                yield f"How much the last check{_of(check)} compared is unknown."
        elif check.coverage < demands.min_coverage:
            yield (
                f"The last check{_of(check)} compared {check.coverage:.3g} of the variables, "
                f"less than {demands.min_coverage:g}."
            )


def _epochs_without(run: RunRecord, demands: Demands) -> Iterator[str]:
    good = (Verdict.PASS, Verdict.SUSPECT) if demands.allow_suspect else (Verdict.PASS,)
    passed = {check.epoch for check in run.checks if check.verdict in good}
    missing = [str(epoch) for epoch in demands.require_epochs if epoch not in passed]
    if missing:
        plural = "s" if len(missing) > 1 else ""
        yield f"No check passed after epoch{plural} {', '.join(missing)}."


def _of(check: Check) -> str:
    return "" if check.name == FIRST else f" of {check.name}"
