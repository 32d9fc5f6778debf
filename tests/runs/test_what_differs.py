"""What else differs between two runs."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from past_runs import run

from tfcheck.judge.verdict import Verdict
from tfcheck.runs.differences import COMMIT, Difference, diff_command, differences
from tfcheck.runs.record import Check, RunRecord

A, B = "a" * 40, "b" * 40


def of(name: str, commit: str = "", place: str = "", **params: str) -> RunRecord:
    """A run with these parameters, and a culprit where a place is given."""
    named = {key.replace("__", "."): value for key, value in params.items()}
    blamed: dict[str, Any] = {"culprits": ("swish",), "places": {"swish": place}} if place else {}
    found = Check(Verdict.FAIL if place else Verdict.PASS, 0, **blamed)
    return run(name, found, params=named, tags={COMMIT: commit} if commit else {})


def test_the_batch_is_compared_callback_by_callback() -> None:
    """By its fingerprint, where both have one."""
    one = of("one", gradcheck__batch_fingerprint="abc")
    same = of("same", gradcheck__batch_fingerprint="abc")
    other = of("other", gradcheck__batch_fingerprint="def")
    assert differences(one, same).batch == "yes: abc"
    assert differences(one, other).batch == "no: abc became def"
    assert differences(one, of("none")).batch.startswith("unknown")


def test_what_is_declared_is_told_for_each() -> None:
    """Nothing, the same, or what only one of them expects."""
    gate = of("gate", gradcheck__expected_mismatch="gate/*, loss")
    loss = of("loss", gradcheck__expected_mismatch="loss")
    assert differences(of("a"), of("b")).declared == "nothing, in both"
    assert differences(loss, loss).declared == "the same in both: loss"
    assert differences(loss, gate).declared == "only in gate: gate/*"


def test_values_are_told_by_their_kind() -> None:
    """Parameters of the training, options of the checks, versions."""
    before = of("a", lr="0.1", gradcheck__seed="0", gradcheck__keras="3.10.0")
    now = of("b", lr="0.2", gradcheck__seed="1", gradcheck__keras="3.11.0", depth="3")
    assert set(differences(before, now).values) == {
        Difference("parameter", "lr", "0.1", "0.2"),
        Difference("parameter", "depth", "", "3"),
        Difference("option", "gradcheck.seed", "0", "1"),
        Difference("version", "Keras", "3.10.0", "3.11.0"),
    }


def test_a_callback_that_only_one_has_is_one_difference() -> None:
    """Not one for each of its options."""
    both = of("b", gradcheck__seed="0", **{"gradcheck-inference__seed": "0"})
    (found,) = differences(of("a", gradcheck__seed="0"), both).values
    assert found == Difference("option", "callbacks", "gradcheck", "gradcheck, gradcheck-inference")


def test_an_optimizer_that_keras_has_numbered_is_the_same() -> None:
    """Its name says how many there were before; another name is a difference."""
    first = of("a", optimizer_name="adam", net="resnet_18")
    second = of("b", optimizer_name="adam_1", net="resnet_34")
    third = of("c", optimizer_name="sgd", net="resnet_18")
    assert [each.name for each in differences(first, second).values] == ["net"]
    assert [each.name for each in differences(first, third).values] == ["optimizer_name"]


def test_the_command_shows_the_files_of_the_culprits(tmp_path: Path) -> None:
    """It is run in a repository, from a folder of it, and shows that file's change alone."""

    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "-q")
    commits = []
    for factor in (1, 2):
        for file in ("shop/layers.py", "other.py"):
            (tmp_path / file).parent.mkdir(exist_ok=True)
            (tmp_path / file).write_text(f"factor = {factor}\n", encoding="utf-8")
        git("add", "-A")
        git("commit", "-qm", "a change")
        commits.append(git("rev-parse", "HEAD"))
    base = of("good", commits[0])
    command = diff_command(base, of("bug", commits[1], "layers.py:1 in Swish.call"))
    folder = tmp_path / "shop"
    shown = subprocess.run(
        shlex.split(command), cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    assert "+factor = 2" in shown
    assert "other.py" not in shown


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (A, A, "the same commit: aaaaaaaaaa"),
        (A, "", "unknown: MLflow knows no commit of b"),
        (A, "$(touch x)", "unknown: MLflow knows no commit of b"),
    ],
)
def test_no_command_where_there_is_nothing_to_show(before: str, now: str, said: str) -> None:
    """The same commit, none, or a tag that is no commit, which is never put into a command."""
    found = differences(of("a", before), of("b", now, "layers.py:1"))
    assert (found.code, found.command) == (said, "")


def test_a_culprit_without_a_file_shows_all() -> None:
    """A cell of a notebook has none, and a strange name is quoted."""
    command = diff_command(of("a", A), of("b", B, "a cell of the notebook"))
    assert command == f"git diff {A[:10]}..{B[:10]}"
    odd = diff_command(of("a", A), of("b", B, "x'; touch y.py:3 in f"))
    assert shlex.split(odd)[-1] == ":(top,glob)**/x'; touch y.py"
