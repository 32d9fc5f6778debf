"""One run as its store knows it: who, when, and the gradient checks in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tfcheck.judge.verdict import Verdict, worst

FIRST = "gradcheck"
"""The name of a callback that has no other."""

DECLARED = "declared"
ABSENT = "absent"
"""What is known of a layer beside the verdicts: declared mismatches, or nothing."""

_BADNESS = (
    ABSENT,
    DECLARED,
    str(Verdict.PASS),
    str(Verdict.INCONCLUSIVE),
    str(Verdict.ERROR),
    str(Verdict.SUSPECT),
    str(Verdict.FAIL),
)


def badness(kind: str) -> int:
    """A key to sort findings by: the worst is the largest."""
    return _BADNESS.index(kind)


@dataclass(frozen=True, slots=True)
class Check:
    """One gradient check of a run.

    Attributes:
        verdict: what it found.
        step: optimizer iterations at the check, as the run counts them.
        epoch: finished epochs; None where that is unknown.
        checkpoint: what the moment is called, such as `"epoch 5"`; `""` where that is unknown.
        name: the callback's name in the log.
        layers: what was found of each layer, by path: a verdict, or `"declared"`.
        culprits: paths of the layers that are wrong by themselves.
        places: the line where the code of a culprit is, by path, as far as that is known.
        coverage: the share of the variables that was really compared; None where that is unknown.
        made_at: when it was made, in milliseconds since 1970; None where that is unknown.
        whole: whether its report was there; else this is what the run's numbers and tags tell.
        in_training: whether a training made it, so that its step is one of the training's.
        error: why it could not be made; `""` where it was.
    """

    verdict: Verdict
    step: int
    epoch: int | None = None
    checkpoint: str = ""
    name: str = FIRST
    layers: Mapping[str, str] = field(default_factory=dict)
    culprits: tuple[str, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict)
    coverage: float | None = None
    made_at: int | None = None
    whole: bool = True
    in_training: bool = True
    error: str = ""

    @property
    def moment(self) -> str:
        """When in training it was made, such as `"epoch 5 (step 285)"`."""
        if not self.in_training:
            return self.checkpoint or "outside training"
        known = self.checkpoint or ("" if self.epoch is None else f"epoch {self.epoch}")
        if known == f"step {self.step}" or not known:
            return f"step {self.step}"
        return f"{known} (step {self.step})"

    def finding(self, layer: str) -> str:
        """What was found of a layer: a verdict, `"declared"`, or `"absent"`."""
        found = self.layers.get(layer, ABSENT)
        if layer not in self.culprits:
            return found
        # A culprit may have no variables, or none that is wrong itself.
        blamed = self.verdict if self.verdict is Verdict.SUSPECT else Verdict.FAIL
        return max(found, str(blamed), key=badness)


@dataclass(frozen=True, slots=True)
class Story:
    """What became of one layer in one run.

    Attributes:
        kind: the worst finding of the run's checks.
        latest: the finding of the last check that has the layer.
        first: the first check with the worst finding.
        culprit: whether it was found wrong by itself.
        place: the line where its code is, if it is a culprit and that is known; else `""`.
    """

    kind: str
    latest: str
    first: Check
    culprit: bool
    place: str


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run of an experiment.

    Attributes:
        run_id: its id.
        name: its name.
        experiment: the name of its experiment.
        started_at: when it began, in milliseconds since 1970; None where that is unknown.
        ended_at: when it ended; None while it goes on.
        status: MLflow's word for how it ended, such as `"FINISHED"`.
        tags: its tags.
        params: its parameters, those of the training and the options of the checks.
        checks: its gradient checks, oldest first, of all callbacks and all trainings in it.
    """

    run_id: str
    name: str = ""
    experiment: str = ""
    started_at: int | None = None
    ended_at: int | None = None
    status: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()

    @property
    def label(self) -> str:
        """What to call it: its name, else the beginning of its id."""
        return self.name or self.run_id[:8]

    @property
    def verdict(self) -> Verdict | None:
        """The worst verdict of all checks; None where there was none."""
        tag = self.tags.get("gradcheck.verdict", "")
        known = [check.verdict for check in self.checks]
        known += [Verdict(tag)] if tag in set(Verdict) else []
        return worst(known) if known else None

    @property
    def whole(self) -> bool:
        """Whether the reports of all checks were there."""
        return bool(self.checks) and all(check.whole for check in self.checks)

    @property
    def culprits(self) -> tuple[str, ...]:
        """Every layer found to be wrong by itself, first finding first."""
        return tuple(dict.fromkeys(path for check in self.checks for path in check.culprits))

    @property
    def places(self) -> dict[str, str]:
        """The line where the code of each culprit is, by path, as far as that is known."""
        return {path: place for check in self.checks for path, place in check.places.items()}

    def story(self, layer: str) -> Story | None:
        """What became of a layer; None where no check has it."""
        found = [(check, check.finding(layer)) for check in self.checks]
        found = [(check, kind) for check, kind in found if kind != ABSENT]
        if not found:
            return None
        kind = max((kind for _, kind in found), key=badness)
        first = next(check for check, other in found if other == kind)
        return Story(kind, found[-1][1], first, layer in self.culprits, self.places.get(layer, ""))
