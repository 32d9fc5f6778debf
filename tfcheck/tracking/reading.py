"""A run read back from MLflow: its gradient checks, and how far its training went.

Runs of all versions are read. Where the report of a check is missing, or of another version, what
the run's numbers and tags tell takes its place.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tfcheck.errors import ReportError
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict, worst
from tfcheck.report.rows import LayerReport
from tfcheck.runs.age import LAST_STEP, Series, Training
from tfcheck.runs.record import DECLARED, Check, RunRecord, badness
from tfcheck.tracking import files, schema

CHECKED_TAG = "gradcheck.schema"
"""The tag of every run with gradient checks."""

_EVERY_CHECK = re.compile(rf"({schema.FIRST}(?:-[^/]+)?)/(?:errors|seconds|evaluations)")
_SECTION = re.compile(rf"{schema.FIRST}(?:-[^/]+)?")
_OURS = re.compile(rf"{schema.FIRST}(?:-[^/]+)?/.+|system/.+")


def record(client: Any, run: Any, experiment: str = "") -> RunRecord:
    """A run with its checks.

    Args:
        client: the `mlflow.MlflowClient` to read with.
        run: the `mlflow.entities.Run`.
        experiment: the name of its experiment.

    Raises:
        Exception: MLflow's.
    """
    checks = [
        check for section in _sections(client, run) for check in _checks(client, run, section)
    ]
    info, data = run.info, run.data
    return RunRecord(
        run_id=str(info.run_id),
        name=info.run_name or "",
        experiment=experiment,
        started_at=info.start_time,
        ended_at=info.end_time,
        status=str(info.status),
        tags=dict(data.tags),
        params=dict(data.params),
        checks=tuple(sorted(checks, key=lambda check: (check.made_at or 0, check.step))),
    )


def training(
    client: Any, run: Any, model_step: int | None = None, model_at: int | None = None
) -> Training:
    """How far the training of a run went.

    Args:
        client: the `mlflow.MlflowClient` to read with.
        run: the `mlflow.entities.Run`.
        model_step: the step that a model was logged at. Defaults to None, for none.
        model_at: when it was logged.

    Raises:
        Exception: MLflow's.
    """
    names = sorted(name for name in run.data.metrics if not _OURS.fullmatch(name))
    series = (Series(name, _points(client, run, name)) for name in names)
    last_step = run.data.tags.get(LAST_STEP, "")
    return Training(
        tuple(series), int(last_step) if last_step.isdecimal() else None, model_step, model_at
    )


def _points(client: Any, run: Any, metric: str) -> tuple[tuple[int, int], ...]:
    logged = client.get_metric_history(run.info.run_id, metric)
    return tuple((int(one.step), int(one.timestamp)) for one in logged)


def _sections(client: Any, run: Any) -> list[str]:
    """What the names of each callback's metrics and files begin with."""
    found = {match[1] for match in map(_EVERY_CHECK.fullmatch, run.data.metrics) if match}
    if CHECKED_TAG in run.data.tags or found:
        there = client.list_artifacts(run.info.run_id)
        found |= {item.path for item in there if item.is_dir and _SECTION.fullmatch(item.path)}
    return sorted(found)


def _checks(client: Any, run: Any, section: str) -> Iterator[Check]:
    """The checks of one callback, those of earlier trainings in the run included."""
    numbers = _numbers(client, run, section)
    reports = _reports(client, run, section)
    for step in sorted({*numbers, *reports}):
        made = numbers.get(step, [])
        for place, report in enumerate(reports.get(step, [])):
            # Two checks of one step within a millisecond are one to MLflow's metrics.
            known = made[min(place, len(made) - 1)] if made else None
            if report is not None:
                made_at = None if known is None else known.made_at
                yield _from_report(report, step, section, made_at)
            elif known is not None:
                yield _from_numbers(known, step, section, run)
        for known in made[len(reports.get(step, [])) :]:
            yield _from_numbers(known, step, section, run)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """What the metrics say of one check."""

    made_at: int
    values: Mapping[str, float]


def _numbers(client: Any, run: Any, section: str) -> dict[int, list[_Numbers]]:
    """The numbers of each check, by its step, the oldest first."""
    found: dict[int, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for name in ("errors", "seconds", "epoch", "failed_variables", "inconclusive_variables"):
        if f"{section}/{name}" in run.data.metrics:
            for one in client.get_metric_history(run.info.run_id, f"{section}/{name}"):
                found[int(one.step)][int(one.timestamp)][name] = float(one.value)
    return {
        step: [_Numbers(at, values) for at, values in sorted(moments.items())]
        for step, moments in found.items()
    }


def _reports(client: Any, run: Any, section: str) -> dict[int, list[GradientReport | None]]:
    """The report of each check, by its step, the oldest first; None where one cannot be read."""
    there = [item.path.rpartition("/")[2] for item in _listed(client, run, section)]
    folders = sorted(
        (folder for folder in there if re.fullmatch(r"step-\d+(-\d+)?", folder)),
        key=lambda folder: (files.step_in(folder), len(folder), folder),
    )
    found: dict[int, list[GradientReport | None]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="tfcheck-") as place:
        for folder in folders:
            report = None
            with suppress(ReportError, OSError, _missing()):
                path = f"{section}/{folder}/report.json"
                file = client.download_artifacts(run.info.run_id, path, place)
                report = GradientReport.load(file).relative_to_model()
            found[files.step_in(folder)].append(report)
    return found


def _listed(client: Any, run: Any, section: str) -> Iterable[Any]:
    try:
        return list(client.list_artifacts(run.info.run_id, section))
    except (OSError, _missing()):  # the files of a run may be gone, or somewhere else
        return []


def _missing() -> type[Exception]:
    from mlflow.exceptions import MlflowException

    return MlflowException


def _from_report(report: GradientReport, step: int, section: str, made_at: int | None) -> Check:
    names = [path.removeprefix(f"{report.model}/") for path in report.culprits]
    places = dict(zip(names, report.culprit_places, strict=False))
    layers: dict[str, str] = {}
    for layer in report.layers:  # Keras allows two layers of one path
        layers[layer.path] = max(layers.get(layer.path, DECLARED), _kind(layer), key=badness)
    share = report.coverage.variables
    return Check(
        verdict=report.verdict,
        step=step,
        epoch=report.epoch,
        checkpoint=report.checkpoint,
        name=_name(section),
        layers=layers,
        culprits=tuple(names),
        places={path: place for path, place in places.items() if place},
        coverage=share if report.variables else None,
        made_at=made_at,
        in_training=report.step is not None,
        error=report.error,
    )


def _kind(layer: LayerReport) -> str:
    counts = [variable.counts for variable in layer.variables]
    return DECLARED if counts and not any(counts) else str(layer.verdict)


def _from_numbers(known: _Numbers, step: int, section: str, run: Any) -> Check:
    """A check without a report: no better than what its numbers and the run's tags allow."""
    values, tags = known.values, run.data.tags
    verdict = _verdict(values, tags.get("gradcheck.verdict", ""))
    failing: list[str] = []
    culprits: list[str] = []
    if verdict is Verdict.FAIL:
        failing, culprits = (_listed_in(tags, name) for name in ("failing_layers", "culprits"))
    epoch = values.get("epoch")
    return Check(
        verdict=verdict,
        step=step,
        epoch=None if epoch is None else int(epoch),
        name=_name(section),
        layers=dict.fromkeys(failing, str(Verdict.FAIL)),
        culprits=tuple(culprits),
        coverage=_share(tags.get("gradcheck.coverage", "")),
        made_at=known.made_at,
        whole=False,
    )


def _verdict(values: Mapping[str, float], tag: str) -> Verdict:
    """The verdict of a check by its numbers, which tell no suspect variable from a good one."""
    if values.get("errors"):
        return Verdict.ERROR
    if values.get("failed_variables"):
        return Verdict.FAIL
    unknown = Verdict.INCONCLUSIVE if values.get("inconclusive_variables") else Verdict.PASS
    whole = Verdict(tag) if tag in set(Verdict) else Verdict.INCONCLUSIVE
    if whole in (Verdict.PASS, Verdict.INCONCLUSIVE):
        return unknown if "failed_variables" in values else Verdict.INCONCLUSIVE
    # Some check of the run was worse than inconclusive, and it may be this one.
    return worst((unknown, Verdict.SUSPECT if whole is Verdict.SUSPECT else Verdict.INCONCLUSIVE))


def _listed_in(tags: Mapping[str, str], name: str) -> list[str]:
    listed = tags.get(f"gradcheck.{name}", schema.NONE).split(", ")
    return [path for path in listed if path and path != schema.NONE]


def _share(tag: str) -> float | None:
    try:
        return float(tag)
    except ValueError:
        return None


def _name(section: str) -> str:
    return section if section == schema.FIRST else section.removeprefix(f"{schema.FIRST}-")
