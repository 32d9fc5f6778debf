"""`tfcheck audit` where nobody types: a project's defaults, JUnit, annotations, completion."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from repository import ROOT

from tfcheck.scripts.cli import main

MODELS = """
import keras
import tensorflow as tf


@tf.custom_gradient
def scaled(x):
    return tf.identity(x), lambda upstream: 2 * upstream


class Doubled(keras.layers.Layer):
    def call(self, x):
        return scaled(x)


def model(*layers):
    made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="first"), *layers])
    made.compile(loss="mse")
    return made


def right():
    return model()


def wrong():
    return model(Doubled(name="doubled"))
"""


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> Iterator[None]:
    """The folder the commands run in, with a file of models and a batch that fits them."""
    path = list(sys.path)
    (tmp_path / "models.py").write_text(MODELS, encoding="utf-8")
    numbers = np.random.default_rng(0)
    np.savez(tmp_path / "batch.npz", x=numbers.normal(size=(4, 3)), y=numbers.normal(size=(4, 2)))
    yield
    sys.path[:] = path
    sys.modules.pop("audited_models", None)


def audit(*arguments: str) -> Result:
    """Run `tfcheck audit` in this process."""
    return CliRunner().invoke(main, ["audit", *arguments])


def project(table: str) -> None:
    """Write a `pyproject.toml` into this folder."""
    Path("pyproject.toml").write_text(table, encoding="utf-8")


# -- what is written -----------------------------------------------------------------------------


def test_junit_and_annotations(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong layer is in both, with the line of its gradient; `--quiet` leaves the annotation."""
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    result = audit(
        *("models.py:wrong", "--batch", "batch.npz", "--quiet"), *("--junit", "x.xml", "--github")
    )
    assert result.exit_code == 1, result.output
    line = next(n for n, text in enumerate(MODELS.splitlines(), 1) if "identity" in text)
    (printed,) = result.stdout.splitlines()
    assert printed.startswith("::error file=models.py,line=")
    assert abs(int(printed.partition("line=")[2].partition(",")[0]) - line) <= 2
    suite = ElementTree.parse("x.xml").getroot().find("testsuite")
    assert suite is not None
    failing = {(c.get("classname"), c.get("name")) for c in suite if c.find("failure") is not None}
    assert {name for _, name in failing} == {"backward pass", "kernel", "bias"}
    assert "models.py:" in (suite.findtext("testcase/failure") or "")


@pytest.mark.parametrize(("there", "expected"), [("true", True), ("", False)])
def test_annotations_only_if_asked(
    monkeypatch: pytest.MonkeyPatch, there: str, expected: bool
) -> None:
    """GITHUB_ACTIONS alone prints nothing; with `--github-auto` it decides."""
    monkeypatch.setenv("GITHUB_ACTIONS", there)
    arguments = ("models.py:wrong", "--batch", "batch.npz", "--quiet")
    assert audit(*arguments).stdout == ""
    assert audit(*arguments, "--github-auto").stdout.startswith("::error ") is expected


def test_a_junit_file_that_cannot_be_written() -> None:
    """It is refused before any work."""
    result = audit("models.py:right", "--batch", "batch.npz", "--junit", "nowhere/x.xml")
    assert result.exit_code == 2
    assert "A report is a file in a folder that exists" in result.stderr


# -- defaults of a project -----------------------------------------------------------------------


def test_defaults_of_a_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are found from a folder below, files are named from theirs, the command line wins."""
    project(
        "[tool.tfcheck]\ndirections = 3\nseed = 5\nepsilon = 1e-6\n"
        "[tool.tfcheck.audit]\nbatch = 'batch.npz'\njson = 'report.json'\nquiet = true\nseed = 6\n"
        "expected-mismatch = 'first/bias'\n"
        "[tool.tfcheck.pytest]\nallow = 'suspect'\n"
    )
    below = tmp_path / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    result = audit("../models.py:right", "--directions", "2")
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    settings = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["settings"]
    assert (settings["directions"], settings["seed"], settings["epsilon"]) == (2, 6, 1e-6)
    assert settings["expected_mismatch"] == ["first/bias"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[tool.tfcheck]\nbatch = 'b.npz'", "key='batch'. Write it in [tool.tfcheck.audit]"),
        ("[tool.tfcheck]\nderections = 8", "key='derections'. Write directions"),
        ("[tool.tfcheck]\nexpected-mismatch = 'a'", "key='expected-mismatch'"),
        ("[tool.tfcheck.audit]\nunsafe = true", "unknown key. Received: key='unsafe'"),
        ("[tool.tfcheck.audit]\nallow = 'suspect'", "unknown key. Received: key='allow'"),
        ("[tool.tfcheck.audit]\nquiet = 'yes'", "quiet must be true or false"),
        ("[tool.tfcheck.audit]\nimport = 3", "import must be a list of strings"),
        ("[tool.tfcheck]\ndirections = [3]", "directions must be a number or a string"),
        ("[tool.tfcheck]\ndirections = true", "directions must be a number or a string"),
        ("[tool.tfcheck]\ndirections = 0", "It is directions in [tool.tfcheck] of"),
        ("[tool.tfcheck]\nphase = 'trian'", "It is phase in [tool.tfcheck] of"),
        ("[tool.tfcheck]\nepsilon = 2.0", "epsilon must be"),
        ("[tool.tfcheck]\naudit = 3", "audit must be a table"),
        ("[tool.tfcheck\n", "must be readable TOML"),
    ],
)
def test_mistakes_in_a_project(table: str, said: str) -> None:
    """Each is one sentence that names the file, before any work; `--help` works all the same."""
    project(table)
    result = audit("models.py:right", "--batch", "batch.npz")
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.strip().splitlines()
    assert said in line
    assert "pyproject.toml" in line
    assert "audited_models" not in sys.modules
    assert audit("--help").exit_code == 0


def test_a_project_that_says_nothing() -> None:
    """Another tool's `pyproject.toml` changes nothing: a batch must be named."""
    project("[tool.ruff]\nline-length = 100\n")
    result = audit("models.py:right")
    assert result.exit_code == 2
    assert "Missing option '--batch'" in result.stderr


# -- completion ----------------------------------------------------------------------------------

TFCHECK = "from tfcheck.scripts.cli import main; main(prog_name='tfcheck')"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    """Each shell gets its script, which its parser takes where it is installed."""
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0, result.output
    assert f"_TFCHECK_COMPLETE={shell}_complete" in result.stdout
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=result.stdout, text=True, check=True)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [("tfcheck aud", "plain,audit"), ("tfcheck audit --phase tr", "plain,train")],
)
def test_completion(typed: str, completed: str) -> None:
    """What the script asks tfcheck is answered, even beside a `pyproject.toml` with a mistake."""
    project("[tool.tfcheck]\nderections = 8")
    asked = {
        "_TFCHECK_COMPLETE": "bash_complete",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
    }
    finished = subprocess.run(
        [sys.executable, "-c", TFCHECK],
        env={**os.environ, **asked, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert completed in finished.stdout.splitlines()


def test_models_are_completed_as_files() -> None:
    """The first argument of an audit is a file."""
    asked = {"_TFCHECK_COMPLETE": "bash_complete", "COMP_WORDS": "tfcheck audit mo"}
    finished = subprocess.run(
        [sys.executable, "-c", TFCHECK],
        env={**os.environ, **asked, "COMP_CWORD": "2", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert finished.stdout.splitlines() == ["file,mo"]


def test_an_unknown_shell() -> None:
    """It is wrong usage."""
    assert CliRunner().invoke(main, ["completion", "tcsh"]).exit_code == 2
