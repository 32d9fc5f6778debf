from __future__ import annotations

from pathlib import Path

import click
import PIL.Image
import pytest
from repository import ROOT

from tfcheck.scripts.screenshots import report_of, shots

PICTURES = ROOT / "docs" / "pictures"
PAGES = (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))


def test_pictures_are_small_and_shown() -> None:
    """Each picture has the size that is kept of its page, is light, and stands in a document."""
    taken = {shot.name: shot for shot in shots("http://127.0.0.1/", ROOT / "report.html")}
    files = {file.stem: file for file in PICTURES.iterdir()}
    assert set(files) == set(taken)
    shown = "".join(page.read_text("utf-8") for page in PAGES)
    for name, file in files.items():
        assert file.stat().st_size < 200_000, name
        assert f"pictures/{file.name})" in shown, name
        with PIL.Image.open(file) as picture:
            assert picture.size == taken[name].seen, name


def test_the_report_of_a_run_is_found(tmp_path: Path) -> None:
    """A run is found by its name; where there is none, it is said how to make the store anew."""
    assert report_of(ROOT / "mlruns_example", "swish, wrong").is_file()
    with pytest.raises(click.ClickException, match=r"must have the run.*make_example_runs"):
        report_of(tmp_path, "swish, wrong")
