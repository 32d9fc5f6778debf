"""`history` and `compare` on a real store."""

from __future__ import annotations

from collections.abc import Iterator

import mlflow
import pytest
from mlflow import MlflowClient
from tracked import BAD, GOOD, logged, report_of, tracking_of

from tfcheck import tracking
from tfcheck.errors import ArgumentError, ArgumentTypeError
from tfcheck.settings import Settings
from tfcheck.tracking import History, TrackingError


def trained(name: str, *reports: object, commit: str = "", **params: str) -> str:
    """A run of this name with these checks."""
    with mlflow.start_run(run_name=name) as run:
        mlflow.set_tag("mlflow.source.git.commit", commit or "0" * 40)
        mlflow.log_params(params)
        log = tracking_of()
        log.start(Settings())
        log.log(reports)  # type: ignore[arg-type]
        log.close()
    return str(run.info.run_id)


@pytest.fixture
def past(client: MlflowClient, experiment: str) -> Iterator[dict[str, str]]:
    """Five runs: healthy, a bug from epoch 1 on with its line, mended, unchecked, wrong again."""
    places = {"culprit_places": ("shop/layers.py:12 in Conv.call",)}
    bug = report_of(BAD, 57, epoch=1, checkpoint="epoch 1", **places)
    ids = {
        "healthy": trained("healthy", report_of(GOOD), commit="a" * 40, lr="0.1"),
        "bug": trained("bug", report_of(GOOD), bug, commit="b" * 40, lr="0.2"),
        "mended": trained("mended", report_of(GOOD), commit="c" * 40),
    }
    with mlflow.start_run(run_name="unchecked") as run:
        mlflow.log_metric("loss", 1.0)
    yield {**ids, "unchecked": run.info.run_id, "again": trained("again", report_of(BAD))}
    for left in client.search_runs([experiment]):  # other tests name theirs alike
        client.delete_run(left.info.run_id)


def changes(found: History) -> list[tuple[str, str, str, str]]:
    """The changes in short."""
    return [(one.layer, one.what, one.run.name, one.base.name) for one in found.changes]


def test_a_history_in_the_order_of_time(past: dict[str, str]) -> None:
    """What regressed and was fixed, since which step; runs without checks are counted."""
    found = tracking.history()
    assert [run.name for run in found.runs] == ["healthy", "bug", "mended", "again"]
    assert found.unchecked == 1
    assert found.last_good is not None
    assert found.last_good.name == "mended"
    assert changes(found) == [
        ("conv", "regressed", "bug", "healthy"),
        ("conv", "fixed", "mended", "bug"),
        ("conv", "regressed", "again", "mended"),
    ]
    since = found.changes[0].since
    assert since is not None
    assert (since.step, since.epoch, since.checkpoint) == (57, 1, "epoch 1")
    text = " ".join(str(found).split())
    assert "conv: fail in bug since epoch 1 (step 57), pass in healthy." in text
    assert "Culprit: conv (shop/layers.py:12 in Conv.call)." in text
    command = "git diff aaaaaaaaaa..bbbbbbbbbb -- ':(top,glob)**/shop/layers.py'"
    assert command in text
    assert f"{found.differences[0].command}" == command


def test_only_the_newest_runs(past: dict[str, str], tmp_path: object) -> None:
    """As many as are asked for, by the experiment's name as well."""
    experiment = MlflowClient().get_run(past["bug"]).info.experiment_id
    name = MlflowClient().get_experiment(experiment).name
    assert [run.name for run in tracking.history(name, last=2).runs] == ["mended", "again"]
    assert len(tracking.history(experiment, last=1).runs) == 1


def test_a_run_is_compared_with_the_last_good_one(past: dict[str, str]) -> None:
    """By its name; the run between them, which is wrong, is passed over."""
    found = tracking.compare("again")
    assert [run.name for run in found.runs] == ["mended", "again"]
    assert found.base is found.runs[0]
    assert changes(tracking.compare(past["bug"])) == [("conv", "regressed", "bug", "healthy")]


def test_runs_are_compared_with_the_first(past: dict[str, str]) -> None:
    """Or with a base; ids, and their beginnings, name runs as well as names."""
    found = tracking.compare("bug", past["healthy"], past["mended"][:8])
    assert [run.name for run in found.runs] == ["bug", "healthy", "mended"]
    assert [one[1:] for one in changes(found)] == [
        ("fixed", "healthy", "bug"),
        ("fixed", "mended", "bug"),
    ]
    frame = tracking.compare("bug", base="healthy").differences_to_dataframe()
    values = {row["name"]: tuple(row)[-2:] for _, row in frame.iterrows()}
    assert values == {"lr": ("0.1", "0.2"), "source": ("a" * 10, "b" * 10)}


def test_what_is_not_there_is_said(past: dict[str, str]) -> None:
    """One sentence each, with what was received and what to do."""
    with pytest.raises(ArgumentError, match=r"experiment='nothing'\. There are: "):
        tracking.history("nothing")
    with pytest.raises(ArgumentError, match=r"run='nothing'\. Give the id or the name"):
        tracking.compare("healthy", "nothing")
    with pytest.raises(ArgumentError, match=r"there is none\. Received: run='healthy'"):
        tracking.compare("healthy")
    with pytest.raises(ArgumentError, match="Name two that differ"):
        tracking.compare("healthy", past["healthy"])
    with pytest.raises(ArgumentError, match="last must be a whole number from 1 to 1,000"):
        tracking.history(last=0)
    mlflow.create_experiment("empty")
    with pytest.raises(ArgumentError, match="Received: 'empty', which has none"):
        tracking.history("empty")
    with pytest.raises(ArgumentTypeError, match="Try \\(1, 5\\)"):
        tracking.gate("bug", require_epochs="1,5")  # type: ignore[arg-type]


def test_a_name_that_two_runs_have_is_refused(past: dict[str, str]) -> None:
    """With the ids to choose from."""
    twin = trained("bug", report_of(GOOD))
    with pytest.raises(ArgumentError, match="Give an id: ") as refused:
        tracking.compare("bug")
    assert past["bug"] in str(refused.value)
    assert twin in str(refused.value)


def test_a_store_that_is_not_there_is_not_made(tmp_path: object, refused_port: int) -> None:
    """Asking makes no database; a server that is away is said to be."""
    with pytest.raises(TrackingError, match="which is not there"):
        tracking.history(tracking_uri="sqlite:///none.db")
    with pytest.raises(TrackingError, match="refused the connection"):
        tracking.history(tracking_uri=f"http://127.0.0.1:{refused_port}")


def test_a_run_on_its_way_is_part_of_the_history(client: MlflowClient) -> None:
    """A training that goes on has no end yet, and its checks so far count."""
    mine = logged([report_of(GOOD)])
    with mlflow.start_run(run_name="now"):
        log = tracking_of()
        log.start(Settings())
        log.log([report_of(BAD)])
        found = tracking.history()
        log.close()
    assert found.runs[0].run_id == mine
    assert (found.runs[-1].ended_at, found.runs[-1].name) == (None, "now")
    assert [one[1] for one in changes(found)] == ["regressed"]
