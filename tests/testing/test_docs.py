"""`docs/testing.md`: the recipe runs, and what it shows is what is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from repository import ROOT
from wrong_layers_package import run_pytest, write_package

PAGE = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """The code block after a marker."""
    (found,) = re.findall(rf"<!-- {name} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    return found


@pytest.mark.parametrize("wrong", [False, True])
def test_the_recipe(tmp_path: Path, wrong: bool) -> None:
    """It checks every layer of the package, and fails for one that it does not know."""
    write_package(tmp_path, wrong=wrong)
    (tmp_path / "test_all.py").write_text(block("recipe"), encoding="utf-8")
    finished = run_pytest(tmp_path)
    printed = finished.stdout
    section = printed.partition(" gradient checks ")[2]
    assert finished.returncode == int(wrong), printed
    assert re.findall(r"test_gradients\[(\w+)\]", section.partition("\n===")[0]) == [
        "Gate",
        "Swish",
    ]
    if wrong:
        assert "1 failed, 2 passed" in printed
        assert "Say in HOW how WrongSwish is made and called." in printed
        assert "Hidden" not in printed
    else:
        assert "2 passed" in printed
