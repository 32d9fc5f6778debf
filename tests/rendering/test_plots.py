"""The picture of a run."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from any_report import REPORTS
from hypothesis import given, settings
from hypothesis import strategies as st
from reports import FAILING, PASSING, RUN, report, training, variable

from tfcheck.gradient_report import GradientReport
from tfcheck.rendering.grid import build_grid
from tfcheck.rendering.palette import COLOURS
from tfcheck.rendering.plots import heatmap, heatmap_png


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the header of a PNG file."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def test_picture_shows_the_grid() -> None:
    """Each cell has the colour of its kind at its place; failures carry their symbol."""
    (axes,) = heatmap(RUN).axes
    pixels = np.asarray(axes.images[0].get_array())
    for y, row in enumerate(build_grid(RUN).cells):
        for x, cell in enumerate(row):
            expected = [int(COLOURS[cell.kind][0][n : n + 2], 16) / 255 for n in (1, 3, 5)]
            assert pixels[y, x] == pytest.approx(expected)
    texts = {(t.get_position(), t.get_text()) for t in axes.texts}
    assert ((3.5, 2.5), "✗ 0.5") in texts
    assert ((4.5, 2.5), "✗ 0.5") in texts
    assert ((0.5, 0.5), "9.7") in texts
    assert any("✗ mnist_cnn: fail since epoch 3 (step 300)" in text for _, text in texts)


def test_picture_keeps_its_size_during_a_run() -> None:
    """A slider over the checks of a run does not jump: all pictures have one size."""
    run = training(*[PASSING, FAILING] * 20)
    sizes = {size_of(heatmap_png(run[:count])) for count in (1, 2, 5, 13, 40)}
    assert len(sizes) == 1


def test_picture_keeps_its_size_when_rows_change_places() -> None:
    """Where only the worst rows are shown, others taking their place do not change the size."""
    names = [f"layer_{n}{'_with_a_long_name' if n > 90 else ''}" for n in range(100)]
    early = report(*(variable(f"{name}/w") for name in names))
    late = report(*(variable(f"{n}/w", 0.5 if "long" in n else 1e-9) for n in names))
    run = training(early, late)
    assert build_grid(run[:1]).rows != build_grid(run).rows
    assert size_of(heatmap_png(run[:1])) == size_of(heatmap_png(run))


def test_columns_keep_their_place_while_there_is_room() -> None:
    """A check stays where it was drawn when the next one arrives."""
    positions = []
    for count in (5, 6):
        (axes,) = heatmap(training(*[PASSING] * count)).axes
        positions.append((axes.get_xlim(), {t.get_position() for t in axes.texts}))
    assert positions[0][0] == positions[1][0]
    assert positions[0][1] < positions[1][1]


def test_picture_is_deterministic() -> None:
    """The same reports give the same bytes: no date, no version, no random name."""
    png = heatmap_png(RUN)
    assert png == heatmap_png(RUN)
    assert b"tEXt" not in png
    assert b"tIME" not in png
    assert png != heatmap_png(RUN[:1])


def test_resolution() -> None:
    """Twice the dots an inch is twice the pixels."""
    small, large = size_of(heatmap_png(RUN, dpi=60)), size_of(heatmap_png(RUN, dpi=120))
    assert large == pytest.approx([2 * pixels for pixels in small], abs=2)


@pytest.mark.filterwarnings("error")
def test_picture_ignores_the_users_style() -> None:
    """A user's rcParams neither change the picture nor break it, and are left as they are."""
    expected = heatmap_png(RUN)
    odd: Any = {
        "text.usetex": True,
        "figure.autolayout": True,
        "figure.dpi": 33,
        "savefig.bbox": "tight",
        "font.size": 30,
        "font.family": "serif",
        "axes.facecolor": "black",
        "text.color": "pink",
        "image.interpolation": "bicubic",
        "image.origin": "lower",
    }
    with mpl.rc_context(odd):
        before = dict(mpl.rcParams)
        assert heatmap_png(RUN) == expected
        assert dict(mpl.rcParams) == before


@pytest.mark.filterwarnings("error")
def test_picture_takes_any_name() -> None:
    """Dollar signs are no formulas, and letters the font lacks neither warn nor fail."""
    names = ("$x_1$/w", "$broken/w", "层/权重", "🙂/w", "a\nb/w", "$\\frac{$/w")
    figure = heatmap([report(*map(variable, names), model="$m$ 层")])
    labels = {text.get_text() for text in figure.axes[0].texts}
    assert {"$x_1$/w", "$broken/w", "?/??", "$\\frac{$/w"} <= labels
    figure.canvas.draw()


@settings(max_examples=15)
@given(st.lists(REPORTS, min_size=1, max_size=4))
def test_any_report_can_be_drawn(reports: list[GradientReport]) -> None:
    """Whatever a report holds, it has a picture."""
    assert size_of(heatmap_png(reports, dpi=30)) > (0, 0)
