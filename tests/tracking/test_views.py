"""The views that an experiment is given."""

from __future__ import annotations

import json

from mlflow import MlflowClient
from tracked import (
    GOOD,
    NOTE,
    logged,
    report_of,
)

from tfcheck.tracking import (
    views,
)


def test_views_are_installed_once(client: MlflowClient, experiment: str) -> None:
    """The first check installs both views and the link; what the user changes stays changed."""
    client.set_experiment_tag(experiment, NOTE, "What we train.")
    logged([report_of(GOOD)])
    tags = client.get_experiment(experiment).tags
    named = [json.loads(value)["name"] for key, value in tags.items() if "sharedViewState" in key]
    assert sorted(named) == ["Gradient check", "Gradient check: failures only"]
    assert tags[NOTE].startswith("What we train.\n\n**Gradient checks:** [charts](#/experiments/")

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
    tags = views.experiment_tags("1", {}, step=0)
    moved = views.experiment_tags("1", tags, step=70)
    assert set(moved) == {name for name in tags if "sharedViewState" in name}
    assert views.experiment_tags("1", {**tags, **moved}, step=70) == {}
    broken = dict.fromkeys(moved, "{}")
    assert views.experiment_tags("1", {**tags, **broken}, step=70) == {}


def test_views_fit_into_a_tag() -> None:
    """No experiment tag is longer than the 20,000 characters MLflow keeps."""
    assert max(map(len, views.experiment_tags("1" * 30, {}, step=10**9).values())) < 20_000
