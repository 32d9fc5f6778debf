"""The views that an experiment is given."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mlflow import MlflowClient
from tracked import (
    BAD,
    GOOD,
    NOTE,
    logged,
    report_of,
)

from tfcheck.tracking import (
    charts,
    views,
)
from tfcheck.tracking.charts import Shown
from tfcheck.tracking.metrics import of_report as metrics_of


def test_views_are_installed_once(client: MlflowClient, experiment: str) -> None:
    """The first check installs both views and the link; what the user changes stays changed."""
    client.set_experiment_tag(experiment, NOTE, "What we train.")
    logged([report_of(GOOD)])
    tags = client.get_experiment(experiment).tags
    named = [json.loads(value)["name"] for key, value in tags.items() if "sharedViewState" in key]
    assert sorted(named) == ["Gradient check", "Gradient check: failures only"]
    assert tags[NOTE].startswith("What we train.\n\n**Gradient checks:** [table](#/experiments/")

    client.set_experiment_tag(experiment, NOTE, "No links, please.")
    key = f"mlflow.sharedViewState.{views.VIEW}"
    client.set_experiment_tag(experiment, key, '{"name": "mine"}')
    client.delete_experiment_tag(experiment, f"mlflow.sharedViewState.{views.FAILURES_VIEW}")
    logged([report_of(GOOD, 40)])
    tags = client.get_experiment(experiment).tags
    assert tags[NOTE] == "No links, please."
    assert tags[key] == '{"name": "mine"}'
    assert f"mlflow.sharedViewState.{views.FAILURES_VIEW}" not in tags


def test_slider_stands_at_the_latest_checkpoint() -> None:
    """While nobody changed a view, its heatmap shows the latest checkpoint."""
    tags = views.experiment_tags("1", {}, Shown(step=0))
    moved = views.experiment_tags("1", tags, Shown(step=70))
    assert set(moved) == {name for name in tags if "sharedViewState" in name}
    assert views.experiment_tags("1", {**tags, **moved}, Shown(step=70)) == {}
    broken = dict.fromkeys(moved, "{}")
    assert views.experiment_tags("1", {**tags, **broken}, Shown(step=70)) == {}


def test_a_view_that_the_user_changed_stays() -> None:
    """A view is written again only where its state is what we wrote, to the letter."""
    tags = views.experiment_tags("1", {}, Shown(step=0))
    key = f"mlflow.sharedViewState.{views.VIEW}"
    others = json.loads(tags[f"mlflow.sharedViewState.{views.FAILURES_VIEW}"])
    changed = json.dumps({**json.loads(tags[key]), "state": others["state"]})
    assert key not in views.experiment_tags("1", {**tags, key: changed}, Shown(step=70))


def test_views_of_an_older_version_are_written_anew() -> None:
    """A view from before, which the user did not change in MLflow, shows what views show now."""
    tags = views.experiment_tags("1", {}, Shown(step=0))
    key = f"mlflow.sharedViewState.{views.VIEW}"
    old = {name: value for name, value in json.loads(tags[key]).items() if name != "gradcheck"}
    anew = views.experiment_tags("1", {**tags, key: json.dumps(old)}, Shown(step=70))
    assert json.loads(anew[key])["gradcheck"]["step"] == 70
    changed = json.dumps({**old, "updatedAt": old["createdAt"] + 1})
    assert key not in views.experiment_tags("1", {**tags, key: changed}, Shown(step=70))


def test_views_fit_into_a_tag() -> None:
    """No experiment tag is longer than the 20,000 characters MLflow keeps."""
    long = tuple(f"gradcheck-{'n' * 40}{place}/digits/{'x' * 200}" for place in range(10))
    shown = Shown(
        10**9, tuple(f"gradcheck-{place}" for place in range(6)), long[:6], long, "f" * 32
    )
    tags = views.experiment_tags("1" * 30, {}, shown)
    assert max(map(len, tags.values())) < 20_000


def test_links_land_where_the_question_is_answered() -> None:
    """Links open the table of runs, with the outcome of each beside its name."""
    assert "compareRunsMode=TABLE" in views.dashboard_link("1")
    state = state_of(views.experiment_tags("1", {}, Shown()))
    told = ["verdict", "culprits", "first_fail", "failing_layers"]
    assert state["selectedColumns"][:4] == [f"tags.`gradcheck.{name}`" for name in told]
    assert sum(state["columnWidths"].values()) <= 760  # what is left of 1440 pixels


def test_failing_layers_come_first() -> None:
    """The first section has the verdict of failing layers, culprits before others."""
    wrong = report_of({f"layer_{n}": {"w": 0.5 if n in (3, 7) else 1e-9} for n in range(60)}, 10)
    shown = charts.shown([replace(wrong, culprits=("swish",))], "gradcheck", "abc")
    names = ["swish", "layer_3", "layer_7"]
    assert shown.failing == tuple(f"gradcheck/verdict/{name}" for name in names)
    assert shown.worst[:2] == ("gradcheck/digits/layer_3.w", "gradcheck/digits/layer_7.w")
    assert len(shown.worst) == charts.MOST_WORST
    state = state_of(views.experiment_tags("1", {}, shown))
    first = state["compareRunSections"][0]["uuid"]
    titles = [c["displayName"] for c in state["compareRunCharts"] if c["metricSectionId"] == first]
    assert titles[-3:] == names
    assert [s["display"] for s in state["compareRunSections"]] == [True] * 4 + [False] * 5
    (compared,) = (c for c in state["compareRunCharts"] if c["type"] == "DIFFERENCE")
    assert compared["baselineColumnUuid"] == "abc"


def test_charts_are_of_metrics_that_are_logged() -> None:
    """Every chart of a view names a metric of the report that it was made for."""
    report = replace(report_of(BAD, 10), culprits=("swish",))
    for section in ("gradcheck", "gradcheck-gan"):
        shown = charts.shown([report], section, "")
        logged_metrics = metrics_of(report, section) | metrics_of(report)
        keys = {c["metricKey"] for c in charts.charts(shown) if c["type"] == "LINE"}
        assert keys <= set(logged_metrics)


def test_other_runs_and_callbacks_stay_in_a_view() -> None:
    """What one run found is still shown when the next has logged, and each callback once."""
    gan = ("gradcheck-gan/verdict/out",)
    one = Shown(5, ("gradcheck", "gradcheck-gan"), gan, ("gradcheck/digits/conv",), "abc")
    two = Shown(9, failing=("gradcheck/verdict/conv",)).after(one)
    assert two == Shown(9, one.sections, ("gradcheck/verdict/conv", *gan))


def test_the_last_good_run_is_the_base(client: MlflowClient, experiment: str) -> None:
    """Runs are compared with the last one that passed."""
    logged([report_of(GOOD)])
    good = logged([report_of(GOOD)])
    logged([report_of(BAD)])
    state = state_of(client.get_experiment(experiment).tags)
    (compared,) = (c for c in state["compareRunCharts"] if c["type"] == "DIFFERENCE")
    assert compared["baselineColumnUuid"] == good


def state_of(tags: Mapping[str, str]) -> dict[str, Any]:
    """The state of our view, as MLflow unpacks it."""
    packed = json.loads(tags[f"mlflow.sharedViewState.{views.VIEW}"])["state"]
    unpacked = zlib.decompress(base64.b64decode(packed.removeprefix("deflate;")))
    state: dict[str, Any] = json.loads(unpacked)
    return state
