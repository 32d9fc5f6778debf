"""The page: whole in itself, escaped, with the newest check first."""

from __future__ import annotations

import dataclasses
import re

from outline import Outline
from reports import FAILING, PASSING, RUN, report, training, variable

from tfcheck.rendering.html import report_fragment, report_page
from tfcheck.report.rows import ObjectiveSummary
from tfcheck.settings import Settings


def test_page_is_self_contained() -> None:
    """The page asks for nothing from outside: no address, no script, no source, no import."""
    page = report_page(RUN)
    assert "http" not in page
    assert "//" not in page
    assert not re.search(r"url\(|@import|@font-face|<(script|link|img|iframe|object)\b", page)
    outline = Outline(page)
    loading = {"src", "href", "srcset", "data", "action", "xlink:href"}
    assert not [attributes for _, attributes in outline.tags if loading & set(attributes)]
    assert not [name for _, attributes in outline.tags for name in attributes if name[:2] == "on"]


def test_names_are_escaped() -> None:
    """A layer, model, note or error that looks like HTML stays text wherever it is shown."""
    evil = '<script>alert("1")</script>\'&amp;'
    found = report(
        variable(f"{evil}/kernel", 0.5, note=f"{evil} `{evil}`"),
        culprits=(evil,),
        notes=(evil,),
        frozen=(evil,),
        model=evil,
        checkpoint=evil,
        error=evil,
        objective=ObjectiveSummary(evil, evil, (1.0,), islands=(evil,), random_ops=(evil,)),
        settings=Settings(method=evil, epsilon=evil, version=evil, expected_mismatch=(evil,)),
    )
    for page in (report_page([found, found]), report_fragment(found)):
        assert "<script" not in page
        assert not [tag for tag, _ in Outline(page).tags if tag == "script"]
        assert "&lt;script&gt;" in page


def test_verdict_comes_first() -> None:
    """The page opens with the verdict over all checks and since when it holds."""
    body = report_page(RUN).split("<body>")[1]
    assert "fail since epoch 3 (step 300)" in body
    order = ["<h1>", "What to do", "<svg", "epoch 4 (step 400)</span>", "How to read this"]
    places = [body.index(each) for each in order]
    assert places == sorted(places)
    assert "What to do" not in report_page([PASSING])


def test_newest_check_first_and_open() -> None:
    """Each check has its own section; only the newest, at the top, is open."""
    page = report_page(RUN)
    sections = Outline(page).having("details", "check")
    assert ["open" in attributes for attributes in sections] == [True] + [False] * 4
    moments = re.findall(r'class="when">(.*?)</span>', page)
    assert moments == [f"epoch {n} (step {100 * n})" for n in (4, 3, 2, 1, 0)]


def test_earlier_failures_are_not_forgotten() -> None:
    """A run that failed once and passes now still opens with the failure, and says both."""
    page = report_page(training(PASSING, FAILING, PASSING))
    assert "fail in 1 of 3 checks, first at epoch 1 (step 100)" in page
    assert "Newest check, epoch 2 (step 200): pass." in page


def test_heatmap_in_the_page() -> None:
    """The SVG has a cell for every variable and check, in its colour class, with a tooltip."""
    page = report_page(RUN)
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert svg.count("<rect ") == 3 * len(RUN)
    assert svg.count('<rect class="fail"') == 2
    assert svg.count('<rect class="error"') == 3
    assert svg.count('<rect class="okay"') == 2
    assert svg.count('<rect class="great"') == 8
    tooltip = "dense/bias, epoch 3 (step 300): fail, score 3.3e-1"
    assert f"<title>{tooltip}</title>" in svg
    assert svg.count("✗ 0.5") == 2


def test_page_is_titled_by_run_and_model() -> None:
    """Of many open pages, each says in its title which run and model it is of."""
    title = re.compile("<title>(.*?)</title>")
    named = title.search(report_page(RUN, "merry-owl-7"))
    assert named is not None
    assert named[1] == "merry-owl-7, mnist_cnn: fail since epoch 3 (step 300)"
    plain = title.search(report_page(RUN))
    assert plain is not None
    assert plain[1] == "mnist_cnn: fail since epoch 3 (step 300)"


def test_verdict_stands_beside_the_variable() -> None:
    """On a phone the first two columns are in sight, so the second is the verdict."""
    heads = re.findall(r'<th scope="col"[^>]*>(.*?)</th>', report_page([FAILING]))
    assert heads[:2] == ["variable", "verdict"]


def test_culprits_in_the_heatmap() -> None:
    """A culprit has a row above the variables, with its line in the tooltip."""
    wrong = dataclasses.replace(FAILING, culprits=("swish",), culprit_places=("a.py:3 in swish",))
    page = report_page([wrong])
    svg = page[page.index("<svg") : page.index("</svg>")]
    assert svg.index("▶ swish") < svg.index("conv/kernel")
    assert "✗ culprit" in svg
    assert "swish (a.py:3 in swish), epoch 2 (step 938): wrong by itself" in svg


def test_light_and_dark() -> None:
    """The page has colours for light and dark, and says so to the browser."""
    page = report_page([PASSING])
    assert "@media (prefers-color-scheme: dark)" in page
    assert '<meta name="color-scheme" content="light dark">' in page


def test_large_models_in_the_page() -> None:
    """All variables of the newest check can be unfolded; older checks only count theirs."""
    found = report(*(variable(f"layer_{n}/w") for n in range(300)))
    page = report_page(training(found, found))
    newest, older = page.split('<details class="card check"')[1:]
    assert newest.count('<td class="path') == 300
    assert older.count('<td class="path') == 30
    assert "270 more variables, all pass" in older


def test_formula_and_bands_are_explained() -> None:
    """A student finds the formula and what each band means, with this check's thresholds."""
    text = re.sub(r"<[^>]*>", " ", report_page([PASSING]))
    for told in ("score =", "‖ĝ − g‖", "‖ĝ‖ + ‖g‖", "up to 1e-7", "1e-5 to 1e-3", "from 1e-3"):
        assert told in text


def test_fragment_is_balanced() -> None:
    """The notebook's piece is one element that closes what it opens and styles only itself."""
    fragment = report_fragment(FAILING)
    assert Outline(fragment).tags[0] == ("div", {"class": "tfcheck"})
    style = fragment[fragment.index("<style>") + 7 : fragment.index("</style>")]
    selectors = re.findall(r"^([^{}\n]+)\{", style, re.MULTILINE)
    assert selectors
    assert all(
        part.strip().startswith(".tfcheck") for found in selectors for part in found.split(",")
    )
