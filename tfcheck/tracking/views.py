"""MLflow's own pages, prepared for gradient checks: two saved views and the links to them.

A saved view is an experiment tag whose format MLflow does not document; what is written here was
seen to work in MLflow 3.15 to 3.17. The views name no layer and no variable: MLflow adds a chart
for every metric by itself and puts it into the section that has the metric's prefix for a name,
so one view serves all models of an experiment.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Collection, Mapping
from typing import Any

VIEW = "gradcheck"
FAILURES_VIEW = "gradcheck-failures"

# Set once the views were written: a view or a link that the user removed later stays removed.
INSTALLED_TAG = "gradcheck.views"

_NAMES = {VIEW: "Gradient check", FAILURES_VIEW: "Gradient check: failures only"}
_FILTERS = {
    VIEW: "tags.`gradcheck.schema` != ''",
    FAILURES_VIEW: "tags.`gradcheck.verdict` = 'fail'",
}
_TAG = "mlflow.sharedViewState."
_PACKED = "deflate;"
_COLUMNS = {
    "tags.`gradcheck.verdict`": 150,
    "tags.`gradcheck.failing_layers`": 200,
    "tags.`gradcheck.culprits`": 170,
    "tags.`gradcheck.first_fail_step`": 170,
    "metrics.`gradcheck/worst_score`": 160,
    "metrics.`gradcheck/worst_digits`": 160,
    "metrics.`gradcheck/failed_variables`": 180,
    "metrics.`gradcheck/inconclusive_variables`": 210,
}


def runs_link(experiment_id: str, **query: str) -> str:
    """The experiment's page of runs. Without the workflow type, MLflow may show an empty page."""
    arguments = {"workflowType": "machine_learning", **query}
    joined = "&".join(f"{name}={value}" for name, value in arguments.items())
    return f"#/experiments/{experiment_id}/runs?{joined}"


def dashboard_link(experiment_id: str, view: str = VIEW, mode: str = "CHART") -> str:
    """The page of runs with a saved view: mode `"TABLE"`, `"CHART"` or `"ARTIFACT"`."""
    return runs_link(experiment_id, viewStateShareKey=view, compareRunsMode=mode)


def run_link(experiment_id: str, run_id: str, artifact: str = "") -> str:
    """A run's own page, or one of its artifacts."""
    path = f"/artifacts/{artifact}" if artifact else ""
    return f"#/experiments/{experiment_id}/runs/{run_id}{path}?workflowType=machine_learning"


def has_view(tags: Collection[str]) -> bool:
    """Whether an experiment with tags of these names has our view."""
    return f"{_TAG}{VIEW}" in tags


def experiment_tags(experiment_id: str, before: Mapping[str, str], step: int) -> dict[str, str]:
    """The experiment tags to write: our views, and the link to them in the note.

    Args:
        experiment_id: the experiment.
        before: the tags it has now. What the user made of them is never changed, except that the
            link is put after the user's own note.
        step: the latest checkpoint, where the heatmap's slider is to stand.
    """
    if INSTALLED_TAG in before:
        return {
            f"{_TAG}{view}": _envelope(view, step, _created_at(before[f"{_TAG}{view}"]))
            for view in _NAMES
            if _is_unchanged(view, before.get(f"{_TAG}{view}", ""), step)
        }
    now = int(time.time() * 1000)
    wanted = {f"{_TAG}{view}": _envelope(view, step, now) for view in _NAMES}
    missing = {name: value for name, value in wanted.items() if name not in before}
    note = before.get("mlflow.note.content", "")
    if VIEW not in note:
        missing["mlflow.note.content"] = f"{note}\n\n{_note(experiment_id)}".strip()
    return {**missing, INSTALLED_TAG: "1"}


def _note(experiment_id: str) -> str:
    return (
        f"**Gradient checks:** [charts]({dashboard_link(experiment_id)}) · "
        f"[table]({dashboard_link(experiment_id, mode='TABLE')}) · "
        f"[variable × run]({dashboard_link(experiment_id, mode='ARTIFACT')}) · "
        f"[failures only]({dashboard_link(experiment_id, FAILURES_VIEW)}). "
        "Digits are −log10 of the similarity score: 0 is wrong, 5 and more is right."
    )


def _envelope(view: str, step: int, created_at: int) -> str:
    return json.dumps(
        {
            "name": _NAMES[view],
            "createdAt": created_at,
            "updatedAt": created_at,
            "state": _packed(_state(view, step)),
        }
    )


def _created_at(tag: str) -> int:
    return int(json.loads(tag)["createdAt"])


def _is_unchanged(view: str, tag: str, step: int) -> bool:
    """Whether a view is as we wrote it, for another step than this."""
    try:
        content = json.loads(tag)
        state = json.loads(
            zlib.decompress(base64.b64decode(content["state"].removeprefix(_PACKED)))
        )
        at = next(chart["step"] for chart in state["compareRunCharts"] if chart["type"] == "IMAGE")
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration, zlib.error):
        return False
    return at != step and content["name"] == _NAMES[view] and state == _state(view, at)


def _state(view: str, step: int) -> dict[str, Any]:
    return {
        "searchFilter": _FILTERS[view],
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": list(_COLUMNS),
        "columnOrder": list(_COLUMNS),
        "columnWidths": _COLUMNS,
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "FIRST_10_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "globalLineChartConfig": {
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "selectedXAxisMetricKey": "",
        },
        "compareRunSections": _sections(),
        "compareRunCharts": _charts(step),
    }


def _sections() -> list[dict[str, Any]]:
    return [
        _section("gradcheck-summary", "Gradient check: summary"),
        _section(
            "gradcheck-heatmap", "Gradient check: heatmap (slide through checkpoints)", 1, 480
        ),
        # Named after a metric prefix: MLflow adds the charts of these metrics here.
        _section("gradcheck-digits", "gradcheck/digits"),
        _section("gradcheck-score", "gradcheck/score", shown=False),
        _section("gradcheck-compare", "Gradient check: runs compared", 1),
        _section("gradcheck-other", "gradcheck", shown=False),
    ]


def _charts(step: int) -> list[dict[str, Any]]:
    return [
        _line_chart("gradcheck-summary", "gradcheck/worst_digits", "digits of the worst variable"),
        _line_chart("gradcheck-summary", "gradcheck/failed_variables", "failed variables"),
        _line_chart("gradcheck-summary", "gradcheck/worst_score", "worst score"),
        {
            **_chart("gradcheck-heatmap", "IMAGE", "gradcheck/heatmap"),
            "imageKeys": ["gradcheck/heatmap"],
            "step": step,
            "showRunParams": False,
        },
        {
            **_chart("gradcheck-compare", "DIFFERENCE", "differences between the runs"),
            "compareGroups": ["Model metrics", "Parameters", "Tags"],
            "chartName": "differences between the runs",
            "showChangeFromBaseline": True,
            "showDifferencesOnly": True,
            "baselineColumnUuid": "",
        },
    ]


def _section(
    uuid: str, name: str, columns: int = 3, height: int = 360, *, shown: bool = True
) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "name": name,
        "display": shown,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        "columns": columns,
        "cardHeight": height,
    }


def _chart(section: str, kind: str, title: str) -> dict[str, Any]:
    return {
        "uuid": f"{section}-{title}".replace(" ", "-").replace("/", "-"),
        "type": kind,
        "metricSectionId": section,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": False,
        "displayName": title,
    }


def _line_chart(section: str, metric: str, title: str) -> dict[str, Any]:
    return {
        **_chart(section, "LINE", title),
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "selectedYAxisMetricKey": "metric",
        "scaleType": "linear",
        "range": {},
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": True,
        "useGlobalXaxisKey": True,
        "displayPoints": True,
        "ignoreOutliers": False,
    }


def _packed(state: dict[str, Any]) -> str:
    """As MLflow packs it itself; plain JSON works too, but a tag holds only 20,000 characters."""
    return _PACKED + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
