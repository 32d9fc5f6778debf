"""`docs/testing.md`: the recipe runs, and what it shows is what is printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from repository import ROOT
from wrong_layers_package import run_pytest, write_package

RIGHT, WRONG = "return x * tf.sigmoid(x)", "return forgetful(x)"
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


def without_numbers(text: str) -> list[str]:
    """The words of a text, line by line: numbers, their signs and columns are another day's."""
    text = re.sub(r"-?\d[\d.]*(e-?\d+)?", "0", text)
    lines = (" ".join(line.removeprefix("E ").split()).strip("─= ") for line in text.splitlines())
    return [line for line in lines if line]


def test_what_is_shown_is_printed(tmp_path: Path) -> None:
    """The failure and the summary of the page come from a session with its own examples."""
    write_package(tmp_path)
    layers = tmp_path / "shop" / "layers.py"
    layers.write_text(layers.read_text("utf-8").replace(RIGHT, WRONG), encoding="utf-8")
    first = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[0]
    (tmp_path / "test_swish.py").write_text(first, encoding="utf-8")
    (tmp_path / "test_layers.py").write_text(block("recipe"), encoding="utf-8")
    finished = run_pytest(tmp_path, "test_swish.py", "test_layers.py")
    assert "2 failed, 1 passed" in finished.stdout
    printed = "\n".join(without_numbers(finished.stdout))
    for name in ("failure", "summary"):
        shown = without_numbers(block(name))
        assert len(shown) >= 4
        assert "\n".join(shown) in printed.replace("GradientCheckFailed: ", "\n"), name
