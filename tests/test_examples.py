from __future__ import annotations

import doctest
import importlib

import pytest
from repository import ROOT


def modules_with_examples() -> list[str]:
    """Dotted names of the modules whose source holds a doctest."""
    folders = {"tfcheck": "tfcheck", "callbacks": "tfcheck.callbacks", "scripts": "tfcheck.scripts"}
    names = []
    for folder, package in folders.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            if ">>> " in path.read_text(encoding="utf-8"):
                inner = path.relative_to(ROOT / folder).with_suffix("").parts
                names.append(".".join((package, *inner)).removesuffix(".__init__"))
    return names


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples(name: str) -> None:
    """The examples in the docstrings run and show what they say."""
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_examples_are_found() -> None:
    """The search finds modules in each kind of place, and their examples do run."""
    assert {"tfcheck.judge.verdict", "tfcheck.callbacks"} <= set(modules_with_examples())
    assert doctest.testmod(importlib.import_module("tfcheck.judge.verdict")).attempted > 0
