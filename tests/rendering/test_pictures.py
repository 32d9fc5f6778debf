"""Pictures of curves and of the layers: whole, told in words, and in any report there can be."""

from __future__ import annotations

import dataclasses
import math
import re
import xml.etree.ElementTree as ET

import pytest
from any_report import REPORTS
from hypothesis import given, settings
from reports import PASSING, report, training, variable

from tfcheck.errors import ArgumentError
from tfcheck.gradient_report import GradientReport
from tfcheck.rendering.html import report_fragment, report_page
from tfcheck.rendering.palette import COLOURS
from tfcheck.rendering.pictures import RIGHT, WRONG
from tfcheck.report.chain import Link
from tfcheck.report.curves import Curves, Differences

PLACES = (-0.5, -0.25, 0.0, 0.25, 0.5)
CURVES = Curves(
    direction="in which the two gradients differ most",
    precision="float64",
    places=PLACES,
    losses=tuple((1 + place) ** 2 for place in PLACES),
    tape=-1.0,
    right=2.0,
    right_bar=1e-12,
    step=1.5e-5,
    differences=(
        Differences("float64", (1e-9, 1e-7, 1e-3), (2.00001, 2.0000001, 2.0)),
        Differences("float32", (1e-7, 1e-3), (3.0, 2.0001)),
    ),
)
WRONG_KERNEL = variable("net/dense/kernel", 0.3, curves=CURVES)
CHAIN = (Link("net/dense", corrupted=True), Link("net/sine"), Link("net/last"), Link("loss"))
FAILING = report(
    WRONG_KERNEL,
    variable("net/last/kernel"),
    model="net",
    culprits=("net/sine",),
    chain=CHAIN,
)


def pictures(page: str) -> list[ET.Element]:
    """The pictures of a page: each must be XML that closes what it opens."""
    found = re.findall(r'<svg class="(?:plot|chain)".*?</svg>', page, re.DOTALL)
    return [ET.fromstring(one) for one in found]


def texts(picture: ET.Element) -> list[str]:
    """What is written in a picture."""
    return [text.text or "" for text in picture.iter("text")]


def test_a_page_has_the_pictures() -> None:
    """The layers in a row, the loss with its tangents, the score by the step."""
    chain, loss, score = pictures(report_page([FAILING]))
    assert [text for text in texts(chain) if text] == [
        *("dense", "✗ gets a wrong gradient", "sine", "✗ culprit"),
        *("last", "✓ right", "loss"),
    ]
    assert {"true", "tape", "loss"} <= set(texts(loss))
    assert {"float64", "float32", "chosen 1.5e-5", "fails from 1e-3"} <= set(texts(score))
    assert len(pictures(report_fragment(FAILING))) == 3


def test_pictures_are_told_in_words() -> None:
    """Each has a title and a description, for those who do not see it."""
    for picture in pictures(report_page([FAILING])):
        assert picture.get("role") == "img"
        title, about = picture.find("title"), picture.find("desc")
        assert title is not None
        assert about is not None
        assert picture.get("aria-label") == f"{title.text}. {about.text}"
    told = " ".join(p.get("aria-label", "") for p in pictures(report_page([FAILING])))
    assert "Its true slope is 2.000 (solid line); that of the tape is -1.000 (dashed)." in told
    assert "With ε = 1e-7 it is 2.5e-8 in float64 and 0.20 in float32." in told
    assert "`net/sine` hands on a wrong one; 1 layer gets it" in told


def test_lines_differ_in_more_than_colour() -> None:
    """What is wrong is dashed, what is right is not, and points of float32 are squares."""
    page = report_page([FAILING])
    style = "\n".join(re.findall(r"<style>(.*?)</style>", page, re.DOTALL))
    rules = dict(re.findall(r"^([^{}\n]+?) \{(.*?)\}", style, re.MULTILINE))
    dashed = {name for name, rule in rules.items() if "stroke-dasharray" in rule}
    assert any(".line-tape" in name for name in dashed)
    assert not any(".line-true" in name for name in dashed)
    _, _, score = pictures(page)
    assert len(list(score.iter("rect"))) == 2
    assert len(list(score.iter("circle"))) == 3


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, after WCAG 2.1."""

    def luminance(colour: str) -> float:
        parts = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colour", [RIGHT, WRONG])
def test_lines_read_in_light_and_dark(colour: str) -> None:
    """Against the papers of both, lines have a contrast of three at least."""
    papers = re.findall(r"--paper: (#\w{6})", report_page([PASSING]))
    assert len(papers) == 2
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast(COLOURS["absent"][0], "#ffffff") < 3
    assert all(contrast(colour, paper) >= 3 for paper in papers)


def test_older_checks_have_no_pictures() -> None:
    """A page of many checks stays small: the newest has them, and the one that is explained."""
    page = report_page(training(FAILING, FAILING, FAILING, PASSING, PASSING))
    assert len(pictures(page)) == 3


def test_a_variable_that_passes_is_folded_away() -> None:
    """There is nothing else to tell of it."""
    curves = dataclasses.replace(CURVES, places=(), losses=())
    page = report_page([report(variable("net/dense/kernel", curves=curves))])
    assert "Why the step matters" in page
    assert len(pictures(page)) == 1


def test_many_layers_are_folded() -> None:
    """Of sixty layers of which the same is said, the first and the last are drawn."""
    links = [Link(f"net/block_{n}", corrupted=True) for n in range(60)]
    chain = (*links, Link("net/sine"), Link("loss"))
    picture, *_ = pictures(report_page([dataclasses.replace(FAILING, chain=chain)]))
    shown = [text for text in texts(picture) if text and "wrong gradient" not in text]
    assert shown == ["block_0", "… 58 more layers", "block_59", "sine", "✗ culprit", "loss"]


def test_right_layers_are_folded_with_those_that_have_no_variables() -> None:
    """Between layers that are right there are some of which nothing is known."""
    links = [Link(f"net/{kind}_{n}") for n in range(9) for kind in ("dense", "tanh")]
    found = report(
        *(variable(f"net/dense_{n}/kernel") for n in range(9)),
        model="net",
        culprits=("net/sine",),
        chain=(Link("net/sine"), *links, Link("loss")),
    )
    (picture,) = pictures(report_page([found]))
    shown = [text for text in texts(picture) if text]
    right = ["dense_0", "✓ right", "… 17 more layers", "✓ right", "loss"]
    assert shown == ["sine", "✗ culprit", *right]


def test_figure_for_a_notebook() -> None:
    """Two panels: the loss with three lines, the score with one a precision."""
    figure = FAILING.plot()
    loss, score = figure.axes
    assert "net/dense/kernel" in loss.get_title()
    labels = [line.get_label() for line in loss.get_lines()]
    assert labels == ["loss", "true slope: 2.000", "tape slope: -1.000"]
    assert [line.get_linestyle() for line in loss.get_lines()] == ["-", "-", "--"]
    assert (score.get_xscale(), score.get_yscale()) == ("log", "log")
    assert {"float64", "float32"} <= {str(line.get_label()) for line in score.get_lines()}
    assert figure._repr_png_()[:8] == b"\x89PNG\r\n\x1a\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["net/dense/kernel", "dense/kernel", "kernel"])
def test_a_variable_is_found_by_the_end_of_its_path(name: str) -> None:
    """As it is called within the model."""
    assert len(FAILING.plot(name).axes) == 2


@pytest.mark.parametrize("name", ["net/last/kernel", "ernel", "", "net/dense"])
def test_no_picture_of_that_variable(name: str) -> None:
    """The error says of which there is one."""
    with pytest.raises(ArgumentError, match=r"There are pictures of 'net/dense/kernel'\."):
        FAILING.plot(name)


def test_a_report_without_pictures() -> None:
    """The error says of what a check has them."""
    with pytest.raises(ArgumentError, match="Received: a report with verdict 'pass'"):
        PASSING.plot()


def test_a_report_of_before_has_none() -> None:
    """A file without curves and layers in a row is read, and one with them comes back."""
    content = FAILING.to_dict()
    assert repr(GradientReport.from_dict(content)) == repr(FAILING)  # nan equals nan there
    del content["chain"]
    for layer in content["layers"]:
        for row in layer["variables"]:
            del row["curves"]
    read = GradientReport.from_dict(content)
    assert read.chain == ()
    assert {v.curves for v in read.variables} == {None}
    assert pictures(report_page([read])) == []


def test_scores_of_differences() -> None:
    """A difference that is right has a score of zero, down to what the slope is known to."""
    exact, off, unrelated = CURVES.scores(Differences("float64", (1.0,) * 3, (2.0, 2.2, -5.0)))
    assert exact == pytest.approx(1e-12 / 4)
    assert off == pytest.approx(0.2 / 4.2)
    assert unrelated == 1.0
    assert math.isnan(CURVES.scores(Differences("float64", (1.0,), (math.nan,)))[0])


@settings(max_examples=60)
@given(REPORTS)
def test_any_report_can_be_drawn(found: GradientReport) -> None:
    """Whatever the numbers are, pages are whole, and a figure is drawn or refused."""
    pictures(report_page([found]))
    try:
        found.plot()
    except ArgumentError:
        assert all(v.curves is None for v in found.variables)
