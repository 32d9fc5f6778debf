"""What is imported is declared in pyproject.toml, and what is declared is imported."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

DISTRIBUTIONS = {
    "PIL": "pillow",
    "ml_dtypes": "ml-dtypes",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""What is installed under another name than it is imported by."""

OPTIONAL = {"IPython"}
"""Imported only where it runs already: in a notebook."""

LOADED_BY = {"tfcheck/testing/pytest_plugin.py": "pytest"}
"""Files that only this imports, so that it is there."""

MADE_UP = {"mypackage", "registered"}
"""Packages that tests write, and import."""

NEVER_IMPORTED = {"pytest-xdist", "setuptools"}
"""What runs the tests in several processes, and what the build that they start is made with."""


def declared(requirements: Iterable[str]) -> set[str]:
    """The names in requirements such as `"jax[cpu]>=0.4"`."""
    return {re.split(r"[\[<>=!~; ]", requirement)[0].lower() for requirement in requirements}


def imported(tree: ast.Module) -> set[str]:
    """The distributions that a module imports from: in functions and for type checkers, too."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    tops = {name.partition(".")[0] for name in names}
    foreign = tops - sys.stdlib_module_names - OPTIONAL - {"tfcheck"}
    return {DISTRIBUTIONS.get(name, name).lower() for name in foreign}


def trees(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    """The syntax tree of every file in folders, each file once."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, ast.parse(path.read_text("utf-8"))


def is_peer(path: Path) -> bool:
    """Whether a file runs what the benchmark compares with, which need not be installed."""
    return path.parent.name == "bench" and path.name.startswith("peers_")


OURS = [(path, tree) for path, tree in trees("tfcheck", "callbacks", "scripts")]


def test_what_is_imported_is_declared() -> None:
    """Whoever installs tfcheck gets all that it imports, and nothing by way of another's needs."""
    known = declared(PROJECT["dependencies"])
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path, tree in OURS
        if not is_peer(path)
        for name in imported(tree) - known - {LOADED_BY.get(path.relative_to(ROOT).as_posix())}
    }
    assert missing == set()


def test_what_is_declared_is_imported() -> None:
    """Nobody installs what nothing uses."""
    used = set().union(*(imported(tree) for path, tree in OURS if not is_peer(path)))
    assert declared(PROJECT["dependencies"]) - used == set()


@pytest.mark.parametrize("extra", ["bench", "test"])
def test_extras_are_what_is_imported_besides(extra: str) -> None:
    """The benchmark's peers and the tests have an extra each: all that they import besides."""
    files = OURS if extra == "bench" else trees("tests")
    used = [imported(tree) for path, tree in files if extra == "test" or is_peer(path)]
    own = {path.stem for path, _ in trees("tests")} | MADE_UP
    besides = set().union(*used) - declared(PROJECT["dependencies"]) - own
    assert declared(PROJECT["optional-dependencies"][extra]) - NEVER_IMPORTED == besides


def test_an_import_is_seen() -> None:
    """The tests above can fail: an import is found however it is written."""
    code = (
        "import json\ndef late():\n    from sklearn.datasets import load_digits\nimport PIL.Image"
    )
    assert imported(ast.parse(code)) == {"scikit-learn", "pillow"}
    assert declared(["jax[cpu]>=0.4", "PyYAML"]) == {"jax", "pyyaml"}
