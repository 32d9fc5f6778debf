"""Writing reports to one MLflow run, strictly: what goes wrong here raises.

`MlflowTracking` decides when to write and forgives; this module only writes.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tfcheck.errors import ReportError, TfcheckError
from tfcheck.report import GradientReport, Settings
from tfcheck.tracking import description, history, schema, views
from tfcheck.tracking.spool import Entry

FOLDER = "gradcheck"
IMAGE_KEY = "gradcheck/heatmap"
_METRICS_A_BATCH = 900
_RUNS_IN_A_CHART = 10  # so many MLflow shows together


class TrackingError(TfcheckError, RuntimeError):
    """A report could not be put into MLflow."""


class RunLog:
    """The gradient checks of one run.

    A run that already holds checks, because training resumed or `fit` was called again, keeps
    them: verdict, tables and report are made from all of its checks. What did not arrive is sent
    again at the next `write`.

    Args:
        client: the `mlflow.MlflowClient` to write with.
        run_id: the run to write to. It must exist.

    Attributes:
        logged: how many entries have their numbers in MLflow.
    """

    def __init__(self, client: Any, run_id: str) -> None:
        self.run_id = run_id
        self.logged = 0
        self._filed = 0
        self._drawn = 0
        self._client = client
        self._earlier: tuple[GradientReport, ...] | None = None

    def write_settings(self, settings: Settings) -> None:
        """Log the options of the checks. Params cannot change: those already there stay."""
        run = self._client.get_run(self.run_id)
        self._client.log_batch(self.run_id, params=_new_params(run, settings))

    def write(self, entries: Sequence[Entry]) -> list[Exception]:
        """Log the entries that are not in MLflow yet, and what sums up all of them.

        Args:
            entries: every report of this training so far, oldest first; at least one.

        Returns:
            What went wrong with files, pictures and views, which the numbers do not depend on.

        Raises:
            Exception: MLflow's, when metrics, params or tags could not be written.
        """
        run = self._client.get_run(self.run_id)
        if self._earlier is None:
            self._earlier = self._read_earlier() if "gradcheck.schema" in run.data.tags else ()
        # Runs are compared by name, and Keras numbers models.
        reports = tuple(
            report.relative_to_model()
            for report in (*self._earlier, *(entry.report for entry in entries))
        )

        self._write_numbers(run, reports, entries[self.logged :])
        self.logged = len(entries)

        problems = self._write_files(reports, entries)
        problems += _attempted(lambda: self._draw_heatmaps(reports, entries))
        problems += _attempted(lambda: self._prepare_views(run.info.experiment_id, reports[-1]))
        return problems

    def _write_numbers(
        self, run: Any, reports: Sequence[GradientReport], fresh: Sequence[Entry]
    ) -> None:
        from mlflow.entities import Metric, RunTag

        tags = schema.tags(reports)
        before = run.data.tags
        colour = before.get("mlflow.runColor")
        shade = schema.shade_of(colour) if colour else self._free_shade(run)
        if shade is not None:
            tags["mlflow.runColor"] = schema.run_colour(history.overall(reports), shade)
        tags["mlflow.loggedArtifacts"] = schema.logged_tables(before.get("mlflow.loggedArtifacts"))
        block = description.describe(reports, run.info.experiment_id, self.run_id)
        tags["mlflow.note.content"] = description.merged(before.get("mlflow.note.content"), block)

        metrics = [
            Metric(name, value, entry.made_at, history.step_of(entry.report))
            for entry in fresh
            for name, value in schema.metrics(entry.report.relative_to_model()).items()
        ]
        params = _new_params(run, fresh[-1].report.settings) if fresh else []
        tag_list = [RunTag(name, value) for name, value in tags.items()]
        first, *rest = _chunks(metrics) or [[]]
        self._client.log_batch(self.run_id, metrics=first, params=params, tags=tag_list)
        for chunk in rest:
            self._client.log_batch(self.run_id, metrics=chunk)

    def _free_shade(self, run: Any) -> int:
        beside = self._client.search_runs(
            [run.info.experiment_id],
            "tags.`gradcheck.schema` != ''",
            max_results=_RUNS_IN_A_CHART,
            order_by=["attributes.start_time DESC"],
        )
        return schema.free_shade(
            other.data.tags.get("mlflow.runColor")
            for other in beside
            if other.info.run_id != self.run_id
        )

    def _write_files(
        self, reports: Sequence[GradientReport], entries: Sequence[Entry]
    ) -> list[Exception]:
        fresh = entries[self._filed :]
        with tempfile.TemporaryDirectory(prefix="tfcheck-") as folder:
            problems = _make_files(Path(folder), reports, fresh)
            sent = _attempted(lambda: self._client.log_artifacts(self.run_id, folder, FOLDER))
        if not sent:
            self._filed = len(entries)
        return problems + sent

    def _draw_heatmaps(self, reports: Sequence[GradientReport], entries: Sequence[Entry]) -> None:
        import PIL.Image

        from tfcheck.rendering.plots import heatmap_png

        before = len(reports) - len(entries)
        for entry in entries[self._drawn :]:
            until = before + self._drawn + 1
            with PIL.Image.open(io.BytesIO(heatmap_png(reports[:until]))) as image:
                self._client.log_image(
                    self.run_id,
                    image,
                    key=IMAGE_KEY,
                    step=history.step_of(entry.report),
                    timestamp=entry.made_at,
                    synchronous=True,
                )
            self._drawn += 1

    def _prepare_views(self, experiment_id: str, latest: GradientReport) -> None:
        before = self._client.get_experiment(experiment_id).tags
        tags = views.experiment_tags(experiment_id, before, history.step_of(latest))
        for name, value in tags.items():
            self._client.set_experiment_tag(experiment_id, name, value)

    def _read_earlier(self) -> tuple[GradientReport, ...]:
        folders = [item.path for item in self._client.list_artifacts(self.run_id, FOLDER)]
        reports = []
        with tempfile.TemporaryDirectory(prefix="tfcheck-") as folder:
            for path in sorted(path for path in folders if path.startswith(f"{FOLDER}/step-")):
                file = self._client.download_artifacts(self.run_id, f"{path}/report.json", folder)
                try:
                    reports.append(GradientReport.load(file))
                except ReportError:  # of another version: its metrics are still there
                    continue
        return tuple(sorted(reports, key=history.step_of))


def step_folder(report: GradientReport) -> str:
    """Folder of one checkpoint's report: `"step-000500"`."""
    return f"step-{history.step_of(report):06d}"


def _make_files(
    folder: Path, reports: Sequence[GradientReport], fresh: Sequence[Entry]
) -> list[Exception]:
    """All files of the `gradcheck/` folder, made anew at every check."""
    _write_json(folder / "verdicts.json", schema.verdicts_table(reports))
    _write_json(folder / "scores.json", schema.scores_table(reports))
    for entry in fresh:
        where = folder / step_folder(entry.report)
        where.mkdir(exist_ok=True)
        entry.report.save(where / "report.json")

    def page() -> None:
        from tfcheck.rendering.html import report_page

        (folder / "report.html").write_text(report_page(reports), encoding="utf-8")

    def picture() -> None:
        from tfcheck.rendering.plots import heatmap_png

        (folder / "heatmap.png").write_bytes(heatmap_png(reports))

    return _attempted(page) + _attempted(picture)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, allow_nan=False, ensure_ascii=False), encoding="utf-8")


def _attempted(action: Callable[[], None]) -> list[Exception]:
    try:
        action()
    except Exception as error:  # noqa: BLE001 - reported by the caller; numbers matter more
        return [error]
    return []


def _new_params(run: Any, settings: Settings) -> list[Any]:
    from mlflow.entities import Param

    return [
        Param(name, value)
        for name, value in schema.params(settings).items()
        if name not in run.data.params
    ]


def _chunks(items: list[Any]) -> list[list[Any]]:
    def cuts() -> Iterator[list[Any]]:
        for start in range(0, len(items), _METRICS_A_BATCH):
            yield items[start : start + _METRICS_A_BATCH]

    return list(cuts())
