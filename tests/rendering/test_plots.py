"""The picture of a run."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from any_report import REPORTS
from contrast import DARK, WHITE, contrast
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import image
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgb
from reports import FAILING, PASSING, RUN, report, training, variable

from tfcheck.gradient_report import GradientReport
from tfcheck.rendering.grid import build_grid
from tfcheck.rendering.palette import COLOURS, INK
from tfcheck.rendering.plots import CARD, WHOLE, heatmap, heatmap_png


def size_of(png: bytes) -> tuple[int, int]:
    """Width and height in pixels, from the header of a PNG file."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")


def test_picture_shows_the_grid() -> None:
    """Each cell has the colour of its kind at its place; failures carry their symbol."""
    (axes,) = heatmap(RUN).axes
    (boxes,) = (each for each in axes.collections if isinstance(each, PatchCollection))
    corners = [path.get_extents() for path in boxes.get_paths()]
    places = [(int(corner.x0), int(corner.y0)) for corner in corners]
    drawn = dict(zip(places, np.asarray(boxes.get_facecolor()), strict=True))
    for y, row in enumerate(build_grid(RUN).cells, start=1):  # below the culprit's
        for x, cell in enumerate(row):
            assert drawn[x, y][:3] == pytest.approx(to_rgb(COLOURS[cell.kind][0]))
    texts = {(t.get_position(), t.get_text()) for t in axes.texts}
    assert ((3.5, 3.5), "✗ 0.5") in texts
    assert ((4.5, 3.5), "✗ 0.5") in texts
    assert ((0.5, 1.5), "9.7") in texts
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


def test_a_culprit_is_marked_and_moves_nothing() -> None:
    """A culprit found in mid-run has its row at the top, and the picture keeps its size."""
    run = training(PASSING, replace(FAILING, culprits=("a_layer_with_quite_a_long_name/swish",)))
    for form in (WHOLE, CARD):
        assert size_of(heatmap_png(run[:1], form=form)) == size_of(heatmap_png(run, form=form))
    texts = {text.get_text() for text in heatmap(run).axes[0].texts}
    assert "▶ …/swish" in texts
    assert "✗ culprit" in texts
    assert "none found" in {text.get_text().strip() for text in heatmap(run[:1]).axes[0].texts}


def test_epochs_stand_below_steps() -> None:
    """Each check is told by its step and, where it is known, by the epochs before it."""
    run = [replace(each, epoch=place) for place, each in enumerate(training(PASSING, FAILING))]
    texts = [text.get_text() for text in heatmap(run).axes[0].texts]
    assert {"step", "100", "epoch", "1"} <= set(texts)
    assert "epoch" not in {text.get_text() for text in heatmap(RUN).axes[0].texts}


@pytest.mark.parametrize("ground", [WHITE, DARK])
def test_picture_suits_light_and_dark_pages(ground: str) -> None:
    """The picture has no ground of its own, and its text can be read on both."""
    png = heatmap_png(RUN)
    corner = image.imread(io.BytesIO(png))[0, 0]
    assert corner[3] == 0
    assert contrast(INK, ground) >= 4


def test_card_is_small_and_near_square() -> None:
    """In a card of MLflow's charts, which is square, a large model has its worst rows."""
    many = report(*(variable(f"layer_{n}/w", 0.5 if n == 77 else 1e-9) for n in range(100)))
    width, height = size_of(heatmap_png([many], 100, CARD))
    assert 500 < width < 640
    assert 0.8 < height / width < 1.2
    texts = {text.get_text() for text in heatmap([many], CARD).axes[0].texts}
    assert "layer_77" in texts
    assert "digits on which both gradients agree, worst 12 of 100 layers" in texts


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
