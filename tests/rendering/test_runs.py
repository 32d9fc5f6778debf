"""Runs beside each other, on the console and as a page."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

from past_runs import check, run

from tfcheck.rendering import runs_words
from tfcheck.rendering.console import timeline_text
from tfcheck.rendering.runs_page import runs_fragment, runs_page
from tfcheck.runs.record import RunRecord
from tfcheck.runs.timeline import Timeline

GOOD = run("good", check(0, hidden="pass", out="pass"), started_at=0)
BUG = run(
    "bug",
    check(0, hidden="pass", out="pass"),
    replace(
        check(5, hidden="fail", out="pass"),
        culprits=("swish",),
        places={"swish": "shop/layers.py:12 in Swish.call"},
    ),
)
BOTH = Timeline((GOOD, BUG), "digits", unchecked=2)


def test_the_console_answers_the_questions() -> None:
    """Which run broke it, at which epoch and step, which layer is to blame, what is unchecked."""
    text = timeline_text(BOTH, width=100)
    flat = " ".join(text.split())
    assert "2 runs with gradient checks of digits" in flat
    assert "Newest: bug, fail. Last good: good. 2 more runs since the first" in flat
    assert "hidden: fail in bug since epoch 5 (step 285), pass in good." in flat
    assert "Culprit: swish (shop/layers.py:12 in Swish.call)." in flat
    assert re.search(r"^hidden +✓ +✗$", text, re.MULTILINE)
    assert re.search(r"^swish +\*✗$", text, re.MULTILINE)
    assert "same batch? unknown" in flat


def test_no_line_is_wider_than_the_page() -> None:
    """From 40 characters on, with many runs; only commands stay in one piece."""
    many = Timeline(tuple(replace(GOOD, run_id=str(n), name=f"run-{n}") for n in range(40)))
    for timeline in (BOTH, many):
        for width in (40, 60, 80, 110):
            lines = timeline_text(timeline, width=width).splitlines()
            assert max(map(len, lines)) <= width, width
    assert "runs 1 to 35 are further left" in " ".join(timeline_text(many, width=40).split())


def test_in_ascii_everything_is_spelled() -> None:
    """Such as in the log of a build."""
    assert timeline_text(BOTH, width=80, encoding="ascii").isascii()


def test_layers_that_always_pass_give_way() -> None:
    """Of many layers those that tell something are shown, and the rest is counted."""
    layers = {f"block_{n}": "pass" for n in range(60)}
    wrong = {**layers, "block_42": "fail"}
    found = [replace(check(0), layers=each) for each in (layers, wrong)]
    timeline = Timeline((run("a", found[0]), run("b", found[1])))
    shown, hidden = runs_words.rows(timeline, 30)
    assert "block_42" in shown
    assert (len(shown), hidden) == (30, 30)
    assert "and 30 more layers, pass in every run" in timeline_text(timeline, width=90)
    assert "block_59" in timeline_text(timeline, width=90, show_all=True)


def test_a_name_that_could_be_a_sentence_is_quoted() -> None:
    """So that it is clear where it ends."""
    odd = replace(BUG, name="swish, wrong")
    assert 'fail in "swish, wrong" since' in " ".join(timeline_text(Timeline((GOOD, odd))).split())


class Outline(HTMLParser):
    """The tags that are open, and what the page asks for."""

    VOID = ("meta", "link", "img", "br", "wbr", "input")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wanted: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.wanted += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def hostile() -> RunRecord:
    """A run whose names are markup."""
    markup = "<script>alert(1)</script>"
    wrong = replace(check(0), layers={markup: "fail"})
    return run(markup, wrong, params={"lr": markup, markup: "2"})


def test_the_page_stands_alone() -> None:
    """All is closed, nothing is asked for, and the verdict is in the title."""
    for made in (runs_page(BOTH), runs_fragment(BOTH), runs_page(Timeline((GOOD,), base=GOOD))):
        outline = Outline(made)
        assert (outline.open, outline.wanted) == ([], [])
    assert "<title>2 runs with gradient checks of digits: fail</title>" in runs_page(BOTH)
    assert "hidden: fail in bug since epoch 5 (step 285)" in Outline(runs_page(BOTH)).text


def test_names_are_no_markup() -> None:
    """Whatever a run, a layer or a parameter is called, it is text."""
    timeline = Timeline((GOOD, hostile()), base=GOOD)
    for made in (runs_page(timeline), runs_fragment(timeline)):
        assert "<script" not in made
        assert "<script>alert(1)</script>" in Outline(made).text


def test_a_page_never_tells_by_colour_alone() -> None:
    """Each cell of the matrix has its symbol and, for who hears the page, its word."""
    cells = re.findall(
        r'<span class="badge (\w+)">(\S+?)<span class="unseen"> (\w+)', runs_page(BOTH)
    )
    assert cells == [
        ("pass", "✓", "pass"),
        ("fail", "✗", "fail"),
        ("pass", "✓", "pass"),
        ("pass", "✓", "pass"),
        ("fail", "✗*", "fail"),
    ]
