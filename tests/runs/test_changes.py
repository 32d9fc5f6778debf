"""What regressed and what was fixed, from run to run."""

from __future__ import annotations

from dataclasses import replace

import pytest
from past_runs import check, run

from tfcheck.judge.verdict import Verdict
from tfcheck.runs.changes import changes, layers_of
from tfcheck.runs.record import Check, RunRecord
from tfcheck.runs.timeline import Timeline

GOOD = run("good", check(0, hidden="pass", out="pass"), check(5, hidden="pass", out="pass"))
LATER = run("later", check(0, hidden="pass", out="pass"), check(5, hidden="fail", out="pass"))
MENDED = run("mended", check(0, hidden="pass", out="pass"))


def told(*runs: RunRecord, base: RunRecord | None = None) -> list[tuple[str, str, str, str]]:
    """The changes: layer, what, in which run, and compared with which."""
    found = changes(runs, base)
    return [(one.layer, one.what, one.run.name, one.base.name) for one in found]


def test_a_layer_regresses_and_is_fixed() -> None:
    """In the first run that finds it wrong, since its first such check; and in the next good."""
    assert told(GOOD, LATER, LATER, MENDED) == [
        ("hidden", "regressed", "later", "good"),
        ("hidden", "fixed", "mended", "later"),
    ]
    (first, _) = changes((GOOD, LATER, MENDED))
    assert first.since is not None
    assert (first.since.step, first.since.epoch) == (285, 5)
    assert (first.before, first.now) == ("pass", "fail")


@pytest.mark.parametrize("unknown", ["inconclusive", "error"])
def test_what_is_unknown_changes_nothing(unknown: str) -> None:
    """A run that could not judge a layer neither breaks nor mends it, and is passed over."""
    blind = run("blind", check(0, hidden=unknown, out="pass"))
    assert told(GOOD, blind, LATER) == [("hidden", "regressed", "later", "good")]
    assert told(LATER, blind, LATER) == []


def test_a_layer_that_is_new_has_not_regressed() -> None:
    """Nobody knows that it ever was right; and one that is gone was not fixed."""
    other = run("other", check(0, conv="fail"))
    assert told(GOOD, other) == []
    assert told(other, GOOD) == []


def test_declared_is_neither_fixed_nor_regressed() -> None:
    """A wrong layer that is expected now is told as that; without the declaration it is judged."""
    declared = run("declared", check(0, hidden="declared", out="pass"))
    assert told(LATER, declared) == [("hidden", "declared", "declared", "later")]
    assert told(GOOD, declared) == []
    assert told(declared, LATER) == [("hidden", "regressed", "later", "declared")]


def test_suspect_counts_between_pass_and_fail() -> None:
    """From good to suspect, and from suspect to wrong, is worse each time."""
    suspect = run("suspect", check(0, hidden="suspect"))
    assert [one[1] for one in told(GOOD, suspect, LATER)] == ["regressed", "regressed"]
    assert told(LATER, suspect) == []


def test_all_are_compared_with_the_base() -> None:
    """With a base, no run is compared with the one before it."""
    assert told(GOOD, LATER, MENDED, base=GOOD) == [("hidden", "regressed", "later", "good")]


def test_a_run_without_reports_that_passed_was_right() -> None:
    """Its layers are unknown, but none of them failed."""
    numbers = replace(check(0), verdict=Verdict.PASS, whole=False)
    bare = run("bare", numbers, tags={"gradcheck.verdict": "pass"})
    assert told(bare, LATER) == [("hidden", "regressed", "later", "bare")]


def test_a_culprit_is_wrong_whatever_its_variables_are() -> None:
    """It has a row of its own, at the check that blames it, also where it has no variables."""
    blamed = Check(Verdict.FAIL, 7, 1, "epoch 1", layers={"hidden": "pass"}, culprits=("swish",))
    story = run("bug", check(0, hidden="pass"), blamed).story("swish")
    assert story is not None
    assert (story.kind, story.culprit, story.first.step) == ("fail", True, 7)
    assert blamed.finding("hidden") == "pass"
    assert layers_of([run("bug", blamed)]) == ("hidden", "swish")


def test_the_layers_are_in_the_order_of_the_newest_model() -> None:
    """Those of older models come after them."""
    older = run("older", check(0, stem="pass", hidden="pass"))
    assert layers_of([older, GOOD]) == ("hidden", "out", "stem")


def test_tables_of_a_timeline() -> None:
    """A row a layer and run, with the change, and since when."""
    timeline = Timeline((GOOD, LATER))
    frame = timeline.to_dataframe()
    assert list(frame["layer"]) == ["hidden", "out"] * 2
    row = frame.iloc[2]
    assert (row["run"], row["verdict"], row["step"], row["epoch"]) == ("later", "fail", 285, 5)
    assert (row["change"], row["base"]) == ("regressed", "good")
    assert timeline.last_good is GOOD
    assert timeline.to_dict()["changes"][0]["layer"] == "hidden"
