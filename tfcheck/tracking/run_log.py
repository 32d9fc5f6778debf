"""Writing checks to one MLflow run, strictly: what goes wrong here raises.

Numbers and files are written apart, because files may have a store of their own that is away.
`delivery.py` decides when to write what, and forgives.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tfcheck.errors import ReportError
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict
from tfcheck.runs.age import LAST_STEP
from tfcheck.tracking import (
    charts,
    colours,
    description,
    files,
    last_good,
    metrics,
    over_checkpoints,
    schema,
    views,
)
from tfcheck.tracking.progress import Progress
from tfcheck.tracking.spool import Content

_METRICS_A_BATCH = 900
_RUNS_IN_A_CHART = 10  # so many MLflow shows together


class RunLog:
    """The checks of one callback in one run.

    A run that already holds checks, because training resumed or `fit` was called again, keeps
    them: the verdict is the worst of all, and tables and pictures show all. Steps that begin
    again go on after the last one that is there.

    Args:
        client: the `mlflow.MlflowClient` to write with.
        run_id: the run to write to. It must exist.
        name: the callback's name in the log.
    """

    def __init__(self, client: Any, run_id: str, name: str) -> None:
        self.run_id = run_id
        self.section = schema.section(name)
        self._client = client
        self._taken: set[str] = set()
        self._earlier: tuple[GradientReport, ...] | None = None

    def write_numbers(self, content: Content, progress: Progress) -> dict[str, Any]:
        """Log metrics, params and tags of the checks that have none in MLflow yet.

        Returns:
            What has changed in the progress.

        Raises:
            Exception: MLflow's.
        """
        run = self._client.get_run(self.run_id)
        self._experiment_id = str(run.info.experiment_id)
        self._run_name = str(run.info.run_name or "")
        placed = self._placed(run, content, progress)
        progress = replace(progress, **placed)
        params = dict(content.target.params)
        tags: dict[str, str] = {}
        fresh = content.entries[progress.numbers :]
        if fresh:
            params |= schema.params(fresh[-1].report.settings)
            tags = self._tags(run, self._reports(content, progress), progress)
        self._log_batch(run, self._metrics(run, content, progress), params, tags)
        return {**placed, "numbers": len(content.entries)}

    def place_files(self, content: Content, progress: Progress) -> dict[str, Any]:
        """Choose a folder for each check, beside those of earlier trainings.

        Returns:
            What has changed in the progress.

        Raises:
            Exception: MLflow's.
        """
        if progress.resumed and self._earlier is None:
            self._earlier = self._read_earlier(progress.folders)
            self._describe(content, progress)
        folders = list(progress.folders)
        for entry in content.entries[len(folders) :]:
            step = over_checkpoints.step_of(_shown(entry.report, progress))
            folders.append(files.folder_of(step, {*folders, *self._taken}))
        return {"folders": tuple(folders)}

    def write_files(self, content: Content, progress: Progress) -> dict[str, Any]:
        """Log tables, page, pictures and reports of the checks that have none in MLflow yet.

        Returns:
            What has changed in the progress.

        Raises:
            Exception: MLflow's.
        """
        reports = self._reports(content, progress)
        entries, folders = content.entries[progress.files :], progress.folders[progress.files :]
        fresh = dict(zip(folders, entries, strict=True))
        with tempfile.TemporaryDirectory(prefix="tfcheck-") as place:
            files.make(Path(place), self.section, reports, fresh, self._run_name)
            self._client.log_artifacts(self.run_id, place)
        return {"files": len(content.entries)}

    def write_end(self, content: Content, progress: Progress) -> None:
        """Note at which step the training ended, if that is known.

        Raises:
            Exception: MLflow's.
        """
        if content.last_step is None or not content.entries:
            return
        before = self._client.get_run(self.run_id).data.tags.get(LAST_STEP, "0")
        step = content.last_step + (progress.shift or 0)
        self._client.set_tag(self.run_id, LAST_STEP, str(max(step, int(before))))

    def prepare_views(self, content: Content, progress: Progress) -> dict[str, Any]:
        """Install the experiment's saved views, and let them show the latest check.

        Returns:
            What has changed in the progress.

        Raises:
            Exception: MLflow's.
        """
        experiment = self._experiment_id
        shown = charts.shown(self._reports(content, progress), self.section, self._good_run())
        before = self._client.get_experiment(experiment).tags
        for name, value in views.experiment_tags(experiment, before, shown).items():
            self._client.set_experiment_tag(experiment, name, value)
        return {"shown": shown.step}

    @functools.cached_property
    def _run_name(self) -> str:
        return str(self._client.get_run(self.run_id).info.run_name or "")

    @functools.cached_property
    def _experiment_id(self) -> str:
        return str(self._client.get_run(self.run_id).info.experiment_id)

    def _placed(self, run: Any, content: Content, progress: Progress) -> dict[str, Any]:
        """Find out, once, after which steps of an earlier training this one goes on."""
        if progress.shift is not None or not content.entries:
            return {}
        key = f"{self.section}/errors"  # every check has it
        logged = (
            self._client.get_metric_history(self.run_id, key) if key in run.data.metrics else ()
        )
        earlier = [metric for metric in logged if metric.timestamp < content.target.made_at]
        last = max((metric.step for metric in earlier), default=0)
        first = over_checkpoints.step_of(content.entries[0].report)
        return {
            "shift": max(0, last - first),
            "errors": int(sum(metric.value for metric in earlier)),
            "resumed": bool(earlier),
        }

    def _reports(self, content: Content, progress: Progress) -> tuple[GradientReport, ...]:
        """All checks of the run as far as they are known, at the steps they are logged at."""
        now = (_shown(entry.report, progress) for entry in content.entries)
        return (*(self._earlier or ()), *now)

    def _metrics(self, run: Any, content: Content, progress: Progress) -> list[Any]:
        from mlflow.entities import Metric

        named = run.data.tags.get("gradcheck.culprits", "") if progress.resumed else ""
        before = [path for path in named.split(", ") if path not in ("", schema.NONE)]
        reports = [_shown(entry.report, progress) for entry in content.entries]
        known = progress.numbers
        return [
            Metric(
                name,
                value,
                content.entries[place].made_at,
                over_checkpoints.step_of(reports[place]),
            )
            for place in range(known, len(reports))
            for guilty in [(*before, *over_checkpoints.culprits(reports[:place]))]
            for name, value in metrics.of_report(reports[place], self.section, guilty).items()
        ]

    def _tags(
        self, run: Any, reports: Sequence[GradientReport], progress: Progress
    ) -> dict[str, str]:
        before = run.data.tags
        tags = schema.merged_tags(before, schema.tags(reports, self.section, progress.errors))
        colour = before.get("mlflow.runColor")
        shade = colours.shade_of(colour) if colour else self._free_shade(run)
        if shade is not None:
            tags["mlflow.runColor"] = colours.run_colour(Verdict(tags["gradcheck.verdict"]), shade)
        tables = before.get("mlflow.loggedArtifacts")
        tags["mlflow.loggedArtifacts"] = schema.logged_tables(tables, self.section)
        tags["mlflow.loggedImages"] = "True"
        tags |= last_good.tag(self._client, run)
        tags |= self._description(before, reports)
        return {name: value for name, value in tags.items() if before.get(name) != value}

    def _description(
        self, before: Mapping[str, str], reports: Sequence[GradientReport]
    ) -> dict[str, str]:
        block = description.describe(reports, self._experiment_id, self.run_id, self.section)
        note = before.get("mlflow.note.content")
        return {"mlflow.note.content": description.merged(note, block, self.section)}

    def _describe(self, content: Content, progress: Progress) -> None:
        """Describe the run anew, once the checks of earlier trainings are known."""
        before = self._client.get_run(self.run_id).data.tags
        for name, value in self._description(before, self._reports(content, progress)).items():
            self._client.set_tag(self.run_id, name, value)

    def _free_shade(self, run: Any) -> int:
        beside = self._client.search_runs(
            [run.info.experiment_id],
            "tags.`gradcheck.schema` != ''",
            max_results=_RUNS_IN_A_CHART,
            order_by=["attributes.start_time DESC"],
        )
        return colours.free_shade(
            other.data.tags.get("mlflow.runColor")
            for other in beside
            if other.info.run_id != self.run_id
        )

    def _good_run(self) -> str:
        """The id of the experiment's last run that passed; `""` if none did."""
        passed = self._client.search_runs(
            [self._experiment_id],
            "tags.`gradcheck.verdict` = 'pass'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        return str(passed[0].info.run_id) if passed else ""

    def _log_batch(
        self, run: Any, metrics: list[Any], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        from mlflow.entities import Param, RunTag

        named = {schema.renamed(name, self.section): value for name, value in params.items()}
        # Params cannot change: those already there stay.
        new = [Param(name, value) for name, value in named.items() if name not in run.data.params]
        first, *rest = list(_chunks(metrics)) or [[]]
        tag_list = [RunTag(name, value) for name, value in tags.items()]
        if first or new or tag_list:
            self._client.log_batch(self.run_id, first, new, tag_list, synchronous=True)
        for chunk in rest:
            self._client.log_batch(self.run_id, chunk, synchronous=True)

    def _read_earlier(self, own: Collection[str]) -> tuple[GradientReport, ...]:
        """The reports of earlier trainings, at the steps they were logged at."""
        there = [item.path for item in self._client.list_artifacts(self.run_id, self.section)]
        self._taken = {path.rpartition("/")[2] for path in there}
        reports = []
        with tempfile.TemporaryDirectory(prefix="tfcheck-") as place:
            for folder in self._taken - set(own):
                if not folder.startswith("step-"):
                    continue
                path = f"{self.section}/{folder}/report.json"
                file = self._client.download_artifacts(self.run_id, path, place)
                try:
                    report = GradientReport.load(file)
                except ReportError:  # of another version: its metrics are still there
                    continue
                reports.append(replace(report.relative_to_model(), step=files.step_in(folder)))
        return tuple(sorted(reports, key=over_checkpoints.step_of))


def _shown(report: GradientReport, progress: Progress) -> GradientReport:
    # Runs are compared by name, and Keras numbers models.
    step = over_checkpoints.step_of(report) + (progress.shift or 0)
    return replace(report.relative_to_model(), step=step)


def _chunks(items: list[Any]) -> Iterator[list[Any]]:
    for start in range(0, len(items), _METRICS_A_BATCH):
        yield items[start : start + _METRICS_A_BATCH]
