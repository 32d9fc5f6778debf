"""MLflow's own pages, prepared for gradient checks: two saved views and the links to them.

A saved view is an experiment tag whose format MLflow does not document; what is written here was
seen to work in MLflow 3.15 to 3.17. Both open as a table of runs, which says what was found beside
each run's name; `charts.py` says what their charts are.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

from tfcheck.tracking import charts

VIEW = "gradcheck"
FAILURES_VIEW = "gradcheck-failures"

# Set once the views were written: a view or a link that the user removed later stays removed.
INSTALLED_TAG = "gradcheck.views"

_NAMES = {VIEW: "Gradient check", FAILURES_VIEW: "Gradient check: failures only"}
_FILTERS = {
    VIEW: "tags.`gradcheck.schema` != ''",
    FAILURES_VIEW: "tags.`gradcheck.verdict` = 'fail'",
}
_TAGS = {view: f"mlflow.sharedViewState.{view}" for view in _NAMES}
_PACKED = "deflate;"
# With the run's name all fit a page of 1440 pixels, and the first three also beside MLflow's
# assistant, which opens by itself on a browser's first visit.
_COLUMNS = {
    "tags.`gradcheck.verdict`": 128,
    "tags.`gradcheck.culprits`": 140,
    "tags.`gradcheck.first_fail`": 135,
    "tags.`gradcheck.failing_layers`": 175,
    "metrics.`gradcheck/worst_digits`": 175,
}


def runs_link(experiment_id: str, **query: str) -> str:
    """The experiment's page of runs. Without the workflow type, MLflow may show an empty page."""
    arguments = {"workflowType": "machine_learning", **query}
    joined = "&".join(f"{name}={value}" for name, value in arguments.items())
    return f"#/experiments/{experiment_id}/runs?{joined}"


def dashboard_link(experiment_id: str, view: str = VIEW, mode: str = "TABLE") -> str:
    """The page of runs with a saved view: mode `"TABLE"`, `"CHART"` or `"ARTIFACT"`."""
    return runs_link(experiment_id, viewStateShareKey=view, compareRunsMode=mode)


def run_link(experiment_id: str, run_id: str, artifact: str = "") -> str:
    """A run's own page, or one of its artifacts."""
    path = f"/artifacts/{artifact}" if artifact else ""
    return f"#/experiments/{experiment_id}/runs/{run_id}{path}?workflowType=machine_learning"


def has_view(tags: Collection[str]) -> bool:
    """Whether an experiment with tags of these names has our view."""
    return _TAGS[VIEW] in tags


def experiment_tags(
    experiment_id: str, before: Mapping[str, str], shown: charts.Shown
) -> dict[str, str]:
    """The experiment tags to write: our views, and the link to them in the note.

    Args:
        experiment_id: the experiment.
        before: the tags it has now. What the user made of them is never changed, except that the
            link is put after the user's own note.
        shown: what the latest check makes worth showing.
    """
    if INSTALLED_TAG in before:
        written = {tag: _rewritten(view, before.get(tag, ""), shown) for view, tag in _TAGS.items()}
        return {tag: value for tag, value in written.items() if value is not None}
    now = int(time.time() * 1000)
    wanted = {tag: _envelope(view, shown, now) for view, tag in _TAGS.items()}
    missing = {name: value for name, value in wanted.items() if name not in before}
    note = before.get("mlflow.note.content", "")
    if VIEW not in note:
        missing["mlflow.note.content"] = f"{note}\n\n{_note(experiment_id)}".strip()
    return {**missing, INSTALLED_TAG: "1"}


def _note(experiment_id: str) -> str:
    return (
        f"**Gradient checks:** [table]({dashboard_link(experiment_id)}) · "
        f"[charts]({dashboard_link(experiment_id, mode='CHART')}) · "
        f"[layer × run]({dashboard_link(experiment_id, mode='ARTIFACT')}) · "
        f"[failures only]({dashboard_link(experiment_id, FAILURES_VIEW)}). "
        "Digits are −log10 of the similarity score: 0 is wrong, 5 and more is right."
    )


def _envelope(view: str, shown: charts.Shown, created_at: int) -> str:
    return json.dumps(
        {
            "name": _NAMES[view],
            "createdAt": created_at,
            "updatedAt": created_at,
            "state": _packed(_state(view, shown)),
            # MLflow does not read this: it is how a view that nobody changed is known.
            "gradcheck": asdict(shown),
        }
    )


def _rewritten(view: str, tag: str, shown: charts.Shown) -> str | None:
    """A view as it is to be now; None where it stays, because nothing is new or the user's."""
    try:
        content = json.loads(tag)
        if content["name"] != _NAMES[view]:
            return None
        created_at = int(content["createdAt"])
        # An older tfcheck did not write what it showed. MLflow notes when a user changes a view.
        if "gradcheck" not in content and content["updatedAt"] == created_at:
            return _envelope(view, shown, created_at)
        last = charts.Shown.of(content["gradcheck"])
        packed = base64.b64decode(content["state"].removeprefix(_PACKED))
        if json.loads(zlib.decompress(packed)) != _state(view, last):
            return None
    except (ValueError, KeyError, TypeError, AttributeError, zlib.error):
        return None
    now = shown.after(last)
    return None if now == last else _envelope(view, now, created_at)


def _state(view: str, shown: charts.Shown) -> dict[str, Any]:
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
        "compareRunSections": charts.sections(shown),
        "compareRunCharts": charts.charts(shown),
    }


def _packed(state: dict[str, Any]) -> str:
    """As MLflow packs it itself; plain JSON works too, but a tag holds only 20,000 characters."""
    return _PACKED + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
