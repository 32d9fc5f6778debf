"""The stages that follow an examination: each may fail, and the others go on without it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from functools import cached_property

from tfcheck.examine.curves import CurvesAt
from tfcheck.examine.examination import Examination
from tfcheck.examine.finding import Finding
from tfcheck.judge.judgement import Judgement
from tfcheck.locate.chain import chain_of_graph, chain_of_run
from tfcheck.locate.culprits import Culprits, culprits_among, find_culprits
from tfcheck.locate.declared import Declared
from tfcheck.locate.placing import Placing
from tfcheck.locate.suspects import Suspects
from tfcheck.objective.eager_objective import EagerObjective
from tfcheck.progress import Progress
from tfcheck.report.chain import Link
from tfcheck.report.curves import Curves
from tfcheck.reproduce.case import Case
from tfcheck.stages import Stages
from tfcheck.trace.batch import Batch
from tfcheck.trace.layers import EagerCall
from tfcheck.trace.steps import Step
from tfcheck.training.comparisons import Comparisons
from tfcheck.training.compiled_loss import BesideCompiled
from tfcheck.training.eager_losses import EagerLosses
from tfcheck.training.precision import TrainedGradient, trained_gradients
from tfcheck.training.xla import CompiledPath
from tfcheck.variables import path_of


class AfterExamining:
    """What is asked of a step once its variables are examined.

    Args:
        step: the step.
        examination: the examination.
        batch: the debug batch.
        comparisons: the step, compared with what becomes of its gradients.
        progress: called as the stages go on.

    Attributes:
        stages: what could not be carried out.
    """

    def __init__(
        self,
        step: Step,
        examination: Examination,
        batch: Batch,
        comparisons: Comparisons,
        progress: Progress,
    ) -> None:
        self.stages = Stages()
        self._step = step
        self._examination = examination
        self._point = examination.point
        self._batch = batch
        self._comparisons = comparisons
        self._progress = progress

    def trained_gradients(self, findings: Sequence[Finding]) -> dict[str, TrainedGradient]:
        """The gradients as they train, by variable.

        Args:
            findings: the findings for what was measured.
        """
        return self.stages.run(
            "the distance of the gradients in training from those in float64",
            lambda: trained_gradients(findings, self._point),
            {},
            accuses=False,
        )

    def culprits(
        self,
        findings: Sequence[Finding],
        declared: Declared,
        wrong_alone: Callable[[EagerCall], Set[str]],
    ) -> Culprits:
        """The layers whose own backward pass is wrong.

        Args:
            findings: the findings for what was measured.
            declared: what is meant to differ.
            wrong_alone: the paths of a layer's inputs and variables that are wrong when a call is
                made again by itself.
        """
        accused = {finding.path for finding in findings if finding.judgement.accuses}
        failed = accused - declared.variables
        if not failed:
            return Culprits()
        return self.stages.run(
            "the search for the culprit",
            lambda: self._culprits(failed, declared.layers, wrong_alone),
            Culprits(),
            accuses=False,
        )

    def _culprits(
        self, failed: Set[str], declared: Set[str], wrong_alone: Callable[[EagerCall], Set[str]]
    ) -> Culprits:
        self._progress("looking for the culprit", 0, 0)
        objective = self._point.objective
        if isinstance(objective, EagerObjective):
            return culprits_among(
                self._calls,
                failed,
                wrong_alone,
                declared=declared,
                step=self._step,
                progress=self._progress,
            )
        suspects = Suspects(self._examination, self._batch, failed)
        return find_culprits(suspects, failed, declared, self._step)

    @cached_property
    def _calls(self) -> list[EagerCall]:
        """The calls of layers of a step that runs eagerly."""
        objective = self._point.objective
        return (
            objective.calls_of_layers(self._batch) if isinstance(objective, EagerObjective) else []
        )

    def beside_compiled_loss(self) -> BesideCompiled:
        """How what is trained compares with the compiled loss."""
        self._progress("following the gradients to the optimizer", 0, 0)
        return self.stages.run(
            "the comparison with the compiled loss",
            self._comparisons.with_compiled_loss,
            BesideCompiled(),
        )

    def misapplied(self, beside: BesideCompiled) -> dict[str, Judgement]:
        """What speaks against how gradients are handed to optimizers, by variable.

        Args:
            beside: how what is trained compares with the compiled loss.
        """
        return self.stages.run(
            "the comparison with what the optimizers get",
            lambda: self._comparisons.with_what_is_applied(beside),
            {},
        )

    def lines(
        self, judgements: Mapping[str, Judgement], culprits: Culprits
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        """The notes that tell the lines of variables, by variable, and the lines of the culprits.

        Args:
            judgements: what is said of the variables so far, by path.
            culprits: the culprits.
        """
        placing = Placing(self._point, self._step, culprits.paths)
        counted = {path: j for path, j in judgements.items() if path not in culprits.explained}
        notes: dict[str, str] = self.stages.run(
            "the lines of the user's code", lambda: placing.notes(counted), {}, accuses=False
        )
        places: tuple[str, ...] = self.stages.run(
            "the lines of the culprits",
            lambda: tuple(map(placing.of_culprit, culprits.paths)),
            (),
            accuses=False,
        )
        return notes, places

    def choices(self, beside: BesideCompiled) -> tuple[str, ...]:
        """What there is to say of what the training step chooses to do.

        Args:
            beside: how what is trained compares with the compiled loss.
        """
        return self.stages.run(
            "the look at what the training step chooses to do",
            lambda: self._comparisons.choices(beside),
            (),
            accuses=False,
        )

    def under_xla(self, judgements: Mapping[str, Judgement]) -> CompiledPath:
        """What XLA makes of the step, where `fit` compiles it so.

        Args:
            judgements: what is said of the variables so far, by path.
        """
        self._progress("comparing with the step as fit runs it", 0, 0)
        return self.stages.run(
            "the comparison with the step that XLA compiles",
            lambda: self._comparisons.with_xla(judgements),
            CompiledPath(),
        )

    def eager_losses(self, losses: EagerLosses) -> tuple[float, ...]:
        """The losses of the step run eagerly.

        Args:
            losses: knows them.
        """
        return self.stages.run(
            "the comparison with an eager run",
            lambda: losses.at(self._point, self._batch),
            (),
            accuses=False,
        )

    def evidence(
        self, culprits: Sequence[str], collected: Callable[[Sequence[str]], tuple[Case, ...]]
    ) -> tuple[Case, ...]:
        """What unit tests of culprits are made of.

        Args:
            culprits: their paths.
            collected: finds it.
        """
        if culprits:
            self._progress("noting what the culprits are given", 0, 0)
        return self.stages.run(
            "the inputs for a unit test", lambda: collected(culprits), (), accuses=False
        )

    def curves(self, findings: Sequence[Finding], *, also_right: bool) -> dict[str, Curves]:
        """What pictures of variables are drawn from, by variable: what there is time for.

        Args:
            findings: what was found of those that pictures may be of.
            also_right: whether, where none is wrong, a right one is of interest.
        """
        found: dict[str, Curves] = {}

        def collect() -> None:
            curves = CurvesAt(self._point, self._batch)
            for path, its in curves.of(findings, also_right=also_right):
                found.setdefault(path, its)

        missed = list(self.stages.cut_short)
        self.stages.run("the curves for pictures", collect, None, accuses=False)
        if missed or self._examination.cut_short or self._examination.uncomposed:
            # Who misses verdicts misses no picture.
            self.stages.cut_short = missed
        return found

    def chain(self, findings: Sequence[Finding], culprits: Culprits) -> tuple[Link, ...]:
        """The layers in a row, and those that culprits corrupt; nothing without a culprit.

        Args:
            findings: what was found of the variables.
            culprits: the culprits.
        """
        if not culprits.paths:
            return ()
        wrong = [finding for finding in findings if finding.judgement.accuses]
        return self.stages.run(
            "the layers in a row", lambda: self._chain(wrong, culprits.paths), (), accuses=False
        )

    def _chain(self, wrong: Sequence[Finding], culprits: Sequence[str]) -> tuple[Link, ...]:
        objective, owner = self._point.objective, path_of(self._step.owner)
        if isinstance(objective, EagerObjective):
            return chain_of_run(self._calls, owner, culprits, {finding.layer for finding in wrong})
        return chain_of_graph(objective, owner, culprits, {finding.path for finding in wrong})
