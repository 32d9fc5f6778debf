"""What a gradient check found, as a frozen value: whole θ → layers → variables → coordinates.

An outcome knows nothing of how it was measured and nothing of where it is shown.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Self

from tfcheck.judge.verdict import Verdict
from tfcheck.report.chain import Link
from tfcheck.report.reproduction import Reproducible
from tfcheck.report.rows import Coverage, LayerReport, ObjectiveSummary, VariableReport, badness
from tfcheck.settings import Settings


@dataclass(frozen=True)
class Outcome:
    """The outcome of one gradient check.

    Attributes:
        verdict: the worst of the layers; `"error"` when the check itself could not be done.
        score: similarity score of all checked variables as one vector θ.
        layers: the layers that own checked variables, in model order.
        culprits: paths of the layers whose own backward pass is wrong.
        notes: sentences a reader should know, such as float32 islands.
        objective: what was differentiated.
        frozen: paths of the variables that are not trainable and so were not checked.
        settings: the options of the check.
        step: optimizer iterations when the check was made; None outside training.
        checkpoint: when in training that was, such as `"start"` or `"epoch 5"`.
        seconds: wall-clock time of the check.
        evaluations: how often the loss was evaluated.
        error: the text of the error when `verdict` is `"error"`.
        model: name of the model.
        epoch: finished epochs when the check was made; None outside training.
        name: name of the callback that made it, `""` outside training.
        evidence: what a unit test of each culprit needs, for `reproduction`. It is in no saved
            report, and empty where nothing is wrong.
        culprit_places: for each of the culprits the line where its code is, such as
            `"layers.py:12 in Swish.call"`; `""` where that is unknown or none of the user's.
        chain: where there are culprits, the layers in the order in which they compute the loss.
    """

    verdict: Verdict
    score: float
    layers: tuple[LayerReport, ...]
    culprits: tuple[str, ...]
    notes: tuple[str, ...]
    objective: ObjectiveSummary
    frozen: tuple[str, ...] = ()
    settings: Settings = field(default_factory=Settings)
    step: int | None = None
    checkpoint: str = ""
    seconds: float = math.nan
    evaluations: int = 0
    error: str = ""
    model: str = ""
    epoch: int | None = None
    name: str = ""
    culprit_places: tuple[str, ...] = ()
    chain: tuple[Link, ...] = ()
    evidence: tuple[Reproducible, ...] = field(
        default=(), compare=False, repr=False, metadata={"saved": False}
    )

    @property
    def variables(self) -> tuple[VariableReport, ...]:
        """All checked variables, in model order."""
        return tuple(variable for layer in self.layers for variable in layer.variables)

    @property
    def coverage(self) -> Coverage:
        """The share of the checked variables, and of their entries, that was really compared."""
        compared = [variable for variable in self.variables if variable.compared]
        total, entries = len(self.variables), sum(v.size for v in self.variables)
        return Coverage(
            len(compared) / total if total else math.nan,
            sum(v.size for v in compared) / entries if entries else math.nan,
        )

    @property
    def worst_first(self) -> tuple[VariableReport, ...]:
        """All checked variables: the worst verdict first, then the highest score."""
        return tuple(sorted(self.variables, key=badness, reverse=True))

    @property
    def failing_layers(self) -> tuple[str, ...]:
        """Paths of the layers with verdict `"fail"`."""
        return tuple(layer.path for layer in self.layers if layer.verdict is Verdict.FAIL)

    @property
    def imprecise_layers(self) -> tuple[str, ...]:
        """Paths of the layers whose gradients in training are too far from those in float64.

        Too far is more than `settings.precision`. This says nothing of the verdict.
        """
        limit = self.settings.precision
        return tuple(layer.path for layer in self.layers if layer.precision_error > limit)

    def count(self, verdict: Verdict) -> int:
        """How many variables have this verdict (declared mismatches are not counted)."""
        return sum(variable.verdict is verdict and variable.counts for variable in self.variables)

    def relative_to_model(self) -> Self:
        """The same report with paths that leave out the model's own name.

        Keras numbers models (`sequential`, `sequential_1`), so only what comes after the name is
        the same from run to run.
        """
        prefix = f"{self.model}/"

        def short(path: str) -> str:
            return path.removeprefix(prefix)

        layers = tuple(
            dataclasses.replace(
                layer,
                path=short(layer.path),
                variables=tuple(
                    dataclasses.replace(v, path=short(v.path), layer=short(v.layer))
                    for v in layer.variables
                ),
            )
            for layer in self.layers
        )
        return dataclasses.replace(
            self,
            layers=layers,
            culprits=tuple(map(short, self.culprits)),
            frozen=tuple(map(short, self.frozen)),
            chain=tuple(dataclasses.replace(link, path=short(link.path)) for link in self.chain),
        )
