"""How a run and its experiment describe themselves to who opens them."""

from __future__ import annotations

from dataclasses import replace

import mlflow
from mlflow import MlflowClient
from tracked import (
    BAD,
    GOOD,
    NOTE,
    logged,
    report_of,
    tracking_of,
)

from tfcheck.judge.verdict import Verdict
from tfcheck.tracking import (
    colours,
    description,
    schema,
)


def test_user_description_and_colour_are_kept(client: MlflowClient) -> None:
    """A user's description stays to the letter, also when edited later, and so does the colour."""
    with mlflow.start_run(description="My *own* words\n\n| a |") as run:
        mlflow.set_tag("mlflow.runColor", "#123456")
        run_id = run.info.run_id
        tracking = tracking_of()
        tracking.start()
        tracking.log([report_of(BAD)])
        note = client.get_run(run_id).data.tags[NOTE]
        assert note.endswith("\n\nMy *own* words\n\n| a |")
        assert note.index("❌") < note.index("My *own*")
        client.set_tag(run_id, NOTE, f"before {note} after")
        tracking.log([report_of(BAD), report_of(BAD, 10)])
    tags = client.get_run(run_id).data.tags
    assert tags[NOTE].startswith("before ")
    assert tags[NOTE].endswith("| a | after")
    assert tags[NOTE].count("### Gradient check") == 1
    assert "in 2 checks" in tags[NOTE]
    assert tags["mlflow.runColor"] == "#123456"


def test_colour_follows_the_verdict(client: MlflowClient) -> None:
    """A run turns from a shade of pass to a shade of fail when it fails."""
    good, bad = logged([report_of(GOOD)]), logged([report_of(GOOD), report_of(BAD, 10)])
    found = [client.get_run(run_id).data.tags["mlflow.runColor"] for run_id in (good, bad)]
    assert found[0] in colours.RUN_COLOURS[Verdict.PASS]
    assert found[1] in colours.RUN_COLOURS[Verdict.FAIL]


def test_neighbours_have_different_colours(client: MlflowClient) -> None:
    """Runs of the same verdict can be told apart in a chart, and keep their shade."""
    runs = [logged([report_of(BAD)]) for _ in range(4)]
    found = [client.get_run(run_id).data.tags["mlflow.runColor"] for run_id in runs]
    assert len(set(found)) == 4
    logged([report_of(BAD, 10)], runs[2])
    assert client.get_run(runs[2]).data.tags["mlflow.runColor"] == found[2]


def test_description_tells_the_culprits_by_their_lines() -> None:
    """What is wrong by itself stands in the description with the line where its code is."""
    wrong = replace(
        report_of(BAD), culprits=("swish", "loss"), culprit_places=("own.py:12 in swish", "")
    )
    block = description.describe([wrong], "1", "abc")
    assert "Wrong by itself: **`swish`** (`own.py:12 in swish`), **`loss`**." in block


def test_description_fits_and_cannot_break(client: MlflowClient) -> None:
    """A long description is cut at whole lines, the user's is not, and odd names stay text."""
    long = "w" * 7500
    block = description.describe([report_of(BAD)], "1", "abc")
    note = description.merged(long, block)
    assert note.endswith(long)
    assert len(note) <= schema.MAX_TAG
    assert description.merged("w" * 7990, block) == "w" * 7990
    odd = report_of({"a|b`c": {"kernel": 0.5}}, notes=("<script>",))
    lines = description.describe([odd], "1", "x").splitlines()
    head, row = (
        next(line for line in lines if line.startswith(start))
        for start in ("| variable", "| `a¦b'c/kernel`")
    )
    assert row.count("|") == head.count("|")


def test_many_variables_are_described_in_few_rows() -> None:
    """Only the worst rows are in the description; what is left out is said."""
    block = description.describe(
        [report_of({f"layer_{i:03}": {"w": 1e-9} for i in range(40)} | {"bad": {"w": 0.5}})],
        "1",
        "x",
    )
    assert block.index("`bad/w`") < block.index("`layer_000/w`")
    assert "… and 26 more, none of them failing." in block
