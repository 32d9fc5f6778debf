"""What a gradient check found, as frozen values: whole θ → layers → variables → coordinates.

A report knows nothing of how it was measured and nothing of where it is shown. Norms are
Euclidean and in the units of the loss per unit of the variable; unknown numbers are `nan`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfcheck.errors import ReportError
from tfcheck.verdict import PRECISION, Thresholds, Verdict

if TYPE_CHECKING:
    import pandas

SCHEMA = 1

REASONS = (
    "",
    "kink",
    "unused",
    "blocked",
    "wrong_shape",
    "below_resolution",
    "non_finite",
    "stochastic",
    "declared",
    "unchecked",
    "misapplied",
    "other_loss",
    "untrained",
    "untracked",
    "compiled",
)


OF_THE_STEP = ("misapplied", "other_loss", "untrained")
"""Reasons that have to do with the training step, not with a derivative."""


@dataclass(frozen=True, slots=True)
class Coordinate:
    """One entry of a variable: its two derivatives, side by side.

    Attributes:
        index: position in the variable, one integer an axis; `()` for a scalar.
        analytic: the derivative `GradientTape` gives; `nan` where the tape gave none.
        numerical: the derivative by central differences; before a wrong layer, what the right
            backward pass makes of the differences of that layer.
        error_bar: how far `numerical` may be from the true derivative.
    """

    index: tuple[int, ...]
    analytic: float
    numerical: float
    error_bar: float


@dataclass(frozen=True, slots=True)
class VariableReport:
    """The finding for one variable.

    Attributes:
        path: Keras path of the variable, such as `"dense/kernel"`.
        layer: Keras path of the layer that owns it, such as `"dense"`.
        shape: the variable's shape.
        score: similarity score ‖ĝ − g‖ / (‖ĝ‖ + ‖g‖) of this variable; `nan` where unknown.
        verdict: the judgement.
        reason: why the verdict is not simply the band of the score; `""` or one of `REASONS`.
        analytic_norm: ‖g‖, from the tape.
        numerical_norm: ‖ĝ‖, estimated along the directions measured.
        error_bar: the part of the score that truncation, round-off and noise can explain.
        worst: the most deviating coordinates looked at, worst first; empty where nothing deviates.
        detectable_error: the smallest ‖ĝ − g‖ that the check would have seen, in the units of the
            gradient; `nan` where unknown.
        note: one sentence for a reader, or `""`.
        pattern: how a wrong gradient follows from something at hand, such as a factor, a sign, a
            transpose or another variable's gradient, as one sentence; `""` where it does not.
        precision_error: ‖g_t − g‖ / (‖g_t‖ + ‖g‖), where g_t is the tape's gradient in the
            precision that trains and g the one in float64; `nan` where unknown or not applicable.
        trained_norm: ‖g_t‖.
        compiled_distance: the same distance between the gradient compiled with XLA and g_t; None
            where they were not compared, as where `fit` does not compile the step.
        slopes: where a kink was found at the point, the slopes of the loss to the left, by the
            tape and to the right, along the direction that deviates most; None where none was.
    """

    path: str
    layer: str
    shape: tuple[int, ...]
    score: float
    verdict: Verdict
    reason: str
    analytic_norm: float
    numerical_norm: float
    error_bar: float
    worst: tuple[Coordinate, ...] = ()
    detectable_error: float = math.nan
    note: str = ""
    pattern: str = ""
    precision_error: float = math.nan
    trained_norm: float = math.nan
    compiled_distance: float | None = None
    slopes: tuple[float, float, float] | None = None

    @property
    def name(self) -> str:
        """The variable's own name within its layer, such as `"kernel"`."""
        return self.path.removeprefix(f"{self.layer}/")

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def counts(self) -> bool:
        """Whether this variable takes part in the verdict: a declared mismatch does not."""
        return self.reason != "declared"

    @property
    def compared(self) -> bool:
        """Whether a difference between its two gradients would have been told, or was."""
        known = math.isfinite(self.score) or self.verdict is Verdict.FAIL
        return known and self.reason not in _NOT_COMPARED


_NOT_COMPARED = ("unused", "below_resolution", "unchecked", "untrained")


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a model was really compared, and not just found too small to be seen.

    Attributes:
        variables: the share of the checked variables, from 0 to 1; `nan` where there are none.
        parameters: the share of their entries.
    """

    variables: float
    parameters: float


@dataclass(frozen=True, slots=True)
class LayerReport:
    """The findings for the variables of one layer, and their score as one vector."""

    path: str
    score: float
    verdict: Verdict
    variables: tuple[VariableReport, ...]

    @property
    def precision_error(self) -> float:
        """The `precision_error` of the layer's variables as one vector; `nan` where unknown."""
        known = [v for v in self.variables if not math.isnan(v.precision_error)]
        if not all(math.isfinite(v.trained_norm) for v in known):
            return 1.0
        gaps = (v.precision_error * (v.trained_norm + v.analytic_norm) for v in known)
        norms = math.hypot(*(v.trained_norm for v in known))
        norms += math.hypot(*(v.analytic_norm for v in known))
        if not known:
            return math.nan
        return math.hypot(*gaps) / norms if norms else 0.0


@dataclass(frozen=True, slots=True)
class ObjectiveSummary:
    """What was differentiated.

    Attributes:
        source: where the loss came from: `"train_step"`, `"loss_fn"`, `"compute_loss"`, or, for a
            layer by itself, `"layer"`.
        phase: `"train"` or `"inference"`.
        losses: value of each loss that a tape differentiated, in float64.
        parity: the largest relative difference between those values and the losses as trained.
        precision: precision of the graph that was measured, normally `"float64"`.
        islands: operations without a float64 form, which were measured in their own precision.
        random_ops: operations that draw different numbers at every evaluation.
        trained_precision: the lowest precision in the step as trained, such as `"float16"`.
        trained_losses: value of each loss in that precision.
        compiled_losses: the same where XLA compiles the step; empty where `fit` does not use XLA.
        eager_losses: the same where the step runs eagerly, at the first check of a training; empty
            where that is unknown.
    """

    source: str
    phase: str
    losses: tuple[float, ...] = ()
    parity: float = math.nan
    precision: str = "float64"
    islands: tuple[str, ...] = ()
    random_ops: tuple[str, ...] = ()
    trained_precision: str = ""
    trained_losses: tuple[float, ...] = ()
    compiled_losses: tuple[float, ...] = ()
    eager_losses: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """The options a check ran with, as given to `tfcheck.check_gradients`.

    `time_limit` is in seconds. `batch_size` and `batch_fingerprint` say on which batch: the same
    fingerprint, the same values.
    """

    phase: str = "train"
    method: str = "directions"
    directions: int = 4
    epsilon: float | str = "auto"
    thresholds: Thresholds = field(default_factory=Thresholds)
    expected_mismatch: tuple[str, ...] = ()
    seed: int = 0
    precision: float = PRECISION
    memory_limit: int | str = "auto"
    time_limit: float | None = None
    batch_size: int | None = None
    version: str = ""
    batch_fingerprint: str = ""


@dataclass(frozen=True)
class GradientReport:
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
        return tuple(sorted(self.variables, key=_badness, reverse=True))

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

    def relative_to_model(self) -> GradientReport:
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
        )

    def to_dict(self) -> dict[str, Any]:
        """The report as plain dictionaries, lists, numbers and strings, ready for JSON.

        Non-finite numbers become the strings `"nan"`, `"inf"` and `"-inf"`, which strict JSON
        parsers accept.
        """
        return {"schema": SCHEMA, **_plain(self)}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> GradientReport:
        """Rebuild a report from `to_dict`'s output.

        Raises:
            ReportError: if the content is not a report, or of an unknown schema.
        """
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            schema = content.get("schema") if isinstance(content, dict) else type(content).__name__
            raise ReportError(
                f"A tfcheck report has schema {SCHEMA}. Received: schema={schema!r}. "
                "Read it with the version of tfcheck that wrote it, or make a new report."
            )
        try:
            return _report_from(content)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ReportError(
                f"A tfcheck report must hold every field of its schema. Received: "
                f"{type(error).__name__}: {error}. Make a new report."
            ) from error

    def save(self, path: str | Path) -> Path:
        """Write the report as JSON and return the path written."""
        path = Path(path)
        path.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False), encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> GradientReport:
        """Read a report that `save` wrote.

        Raises:
            ReportError: if the file is missing, or is not a report.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ReportError(
                f"A report must be a readable JSON file. Received: path={str(path)!r} "
                f"({type(error).__name__}). Give a file that GradientReport.save wrote."
            ) from error
        return cls.from_dict(content)

    def to_dataframe(self) -> pandas.DataFrame:
        """One row a variable, in model order, with the fields of `VariableReport`."""
        import pandas

        left_out = ("worst", "slopes")
        columns = [f.name for f in dataclasses.fields(VariableReport) if f.name not in left_out]
        rows = [[getattr(variable, column) for column in columns] for variable in self.variables]
        frame = pandas.DataFrame(rows, columns=columns)
        frame["verdict"] = frame["verdict"].map(str)
        return frame

    def __str__(self) -> str:
        from tfcheck.rendering.console import report_text

        return report_text(self)

    def _repr_html_(self) -> str:
        from tfcheck.rendering.html import report_fragment

        return report_fragment(self)


def _badness(variable: VariableReport) -> tuple[bool, int, float]:
    score = math.inf if math.isnan(variable.score) else variable.score
    return variable.counts, variable.verdict.severity, score


def _plain(value: Any) -> Any:
    """Dataclasses, tuples and floats to what strict JSON can hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Verdict):
        return str(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    kind: Any = type(value)
    names = _field_names(kind)
    return {name: _plain(getattr(value, name)) for name in names} if names else value


@functools.cache
def _field_names(kind: type) -> tuple[str, ...]:
    """The fields of a kind of dataclass, looked up once: a training waits for a report's JSON."""
    return tuple(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else ()


def _variable_from(content: dict[str, Any]) -> VariableReport:
    worst = tuple(
        Coordinate(
            tuple(item["index"]),
            float(item["analytic"]),
            float(item["numerical"]),
            float(item["error_bar"]),
        )
        for item in content["worst"]
    )
    numbers = ("score", "analytic_norm", "numerical_norm", "error_bar", "detectable_error")
    # Reports of version 0.1 lack the latter.
    later = ("precision_error", "trained_norm")
    compiled_distance, slopes = content.get("compiled_distance"), content.get("slopes")
    return VariableReport(
        **{
            **content,
            **{name: float(content[name]) for name in numbers},
            **{name: float(content[name]) for name in later if name in content},
            "compiled_distance": None if compiled_distance is None else float(compiled_distance),
            "slopes": None if slopes is None else tuple(map(float, slopes)),
            "shape": tuple(content["shape"]),
            "verdict": Verdict(content["verdict"]),
            "worst": worst,
        }
    )


def _report_from(content: dict[str, Any]) -> GradientReport:
    layers = tuple(
        LayerReport(
            layer["path"],
            float(layer["score"]),
            Verdict(layer["verdict"]),
            tuple(_variable_from(variable) for variable in layer["variables"]),
        )
        for layer in content["layers"]
    )
    objective = content["objective"]
    settings = content["settings"]
    fields = {name: value for name, value in content.items() if name != "schema"}
    return GradientReport(
        **{
            **fields,
            "verdict": Verdict(content["verdict"]),
            "score": float(content["score"]),
            "layers": layers,
            "culprits": tuple(content["culprits"]),
            "notes": tuple(content["notes"]),
            "frozen": tuple(content["frozen"]),
            "seconds": float(content["seconds"]),
            "objective": ObjectiveSummary(
                **{
                    **objective,
                    "losses": tuple(float(loss) for loss in objective["losses"]),
                    "parity": float(objective["parity"]),
                    "islands": tuple(objective["islands"]),
                    "random_ops": tuple(objective["random_ops"]),
                    **{
                        name: tuple(float(loss) for loss in objective.get(name, ()))
                        for name in ("trained_losses", "compiled_losses", "eager_losses")
                    },
                }
            ),
            "settings": Settings(
                **{
                    **settings,
                    "thresholds": Thresholds(**settings["thresholds"]),
                    "expected_mismatch": tuple(settings["expected_mismatch"]),
                }
            ),
        }
    )
