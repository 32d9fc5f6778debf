from __future__ import annotations

import dataclasses
import io
import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import ROOT
from rich.cells import cell_len
from rich.console import Console

from tfcheck.checker import check_alone
from tfcheck.errors import ArgumentError
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Thresholds, Verdict, digits, worst
from tfcheck.rendering import words
from tfcheck.rendering.advice import advice
from tfcheck.rendering.console import history_text, print_history, print_report, report_text
from tfcheck.rendering.grid import build_grid, overall
from tfcheck.rendering.html import report_fragment, report_page
from tfcheck.rendering.palette import COLOURS
from tfcheck.rendering.plots import heatmap, heatmap_png
from tfcheck.report.rows import Coordinate, LayerReport, ObjectiveSummary, VariableReport
from tfcheck.reproduce.case import Case
from tfcheck.reproduce.evidence import Evidence
from tfcheck.settings import Settings

VERDICT_OF_BAND = {
    "great": Verdict.PASS,
    "okay": Verdict.PASS,
    "suspect": Verdict.SUSPECT,
    "concerning": Verdict.FAIL,
    "unknown": Verdict.INCONCLUSIVE,
}


def variable(path: str, score: float = 2e-10, **fields: Any) -> VariableReport:
    """A variable with the verdict of its score, unless told otherwise."""
    known: dict[str, Any] = {
        "layer": path.rpartition("/")[0],
        "shape": (3, 2),
        "verdict": VERDICT_OF_BAND[Thresholds().band(score)],
        "reason": "",
        "analytic_norm": 1.5,
        "numerical_norm": 1.75,
        "error_bar": 4e-11,
    }
    return VariableReport(path=path, score=score, **{**known, **fields})


def report(*variables: VariableReport, **fields: Any) -> GradientReport:
    """A report on these variables, gathered by layer, with the verdict that follows."""
    by_layer: dict[str, list[VariableReport]] = {}
    for each in variables:
        by_layer.setdefault(each.layer, []).append(each)
    layers = tuple(
        LayerReport(
            path,
            max((v.score for v in found if v.counts), default=0.0),
            worst([v.verdict for v in found if v.counts] or [Verdict.PASS]),
            tuple(found),
        )
        for path, found in by_layer.items()
    )
    known: dict[str, Any] = {
        "verdict": worst(layer.verdict for layer in layers),
        "score": max((layer.score for layer in layers), default=math.nan),
        "layers": layers,
        "culprits": (),
        "notes": (),
        "objective": ObjectiveSummary("train_step", "train", (2.302585,), 4e-8),
        "step": 938,
        "checkpoint": "epoch 2",
        "seconds": 1.3,
        "evaluations": 212,
        "model": "mnist_cnn",
    }
    return GradientReport(**{**known, **fields})


WRONG_BIAS = variable(
    "dense/bias",
    0.33,
    worst=(Coordinate((3,), 0.012345, 0.02469, 2e-12), Coordinate((77,), -0.5, 0.5, 3e-12)),
    note="Wrong by a constant factor.",
)
FAILING = report(variable("conv/kernel"), variable("dense/kernel"), WRONG_BIAS)
PASSING = report(variable("conv/kernel"), variable("dense/kernel"), variable("dense/bias", 3e-6))
ERROR = GradientReport(
    Verdict.ERROR,
    math.nan,
    (),
    (),
    (),
    ObjectiveSummary("train_step", "train"),
    error="The debug batch must fit the model.",
    step=0,
)


def training(*reports: GradientReport) -> list[GradientReport]:
    """These checks as one run: 100 steps apart."""
    return [
        dataclasses.replace(each, step=100 * place, checkpoint=f"epoch {place}")
        for place, each in enumerate(reports)
    ]


RUN = training(PASSING, ERROR, PASSING, FAILING, FAILING)
RENDERERS: dict[str, Callable[[GradientReport], str]] = {
    "console": report_text,
    "fragment": report_fragment,
    "page": lambda found: report_page([found]),
}


@pytest.fixture(params=RENDERERS)
def render(request: pytest.FixtureRequest) -> Callable[[GradientReport], str]:
    """Every way to show one report."""
    return RENDERERS[request.param]


def row_of(path: str, text: str) -> str:
    """The row of a variable in the table on the console."""
    rows = [line for line in text.split("\n") if line.strip().startswith(f"{path} ")]
    assert len(rows) == 1, rows
    return rows[0]


# What every way of showing a report promises.


def test_failing_rows_first(render: Callable[[GradientReport], str]) -> None:
    """The layer with a failure precedes those that pass, though it comes last in the model."""
    table = re.sub(r"<[^>]*>", "", render(FAILING)).split("error bar", 1)[1]
    assert 0 <= table.index("dense/bias") < table.index("dense/kernel") < table.index("conv/kernel")


def test_no_hidden_thresholds(render: Callable[[GradientReport], str]) -> None:
    """The thresholds the check ran with are printed, not the defaults."""
    chosen = Settings(thresholds=Thresholds(2e-8, 3.5e-6, 4e-2))
    text = render(dataclasses.replace(PASSING, settings=chosen)).replace("&lt;", "<")
    assert "great ≤ 2e-8, okay ≤ 3.5e-6 (passes), concerning ≥ 4e-2 (fails)" in text
    assert "1e-7" not in text


def test_what_was_measured_and_how(render: Callable[[GradientReport], str]) -> None:
    """Model, moment, loss, phase, method, seed, step and batch are all told."""
    ran = Settings(directions=7, epsilon=1e-6, seed=42, batch_size=32)
    text = render(dataclasses.replace(PASSING, settings=ran))
    for told in (
        "mnist_cnn",
        "epoch 2 (step 938)",
        "2.3025",
        "train",
        "train_step",
        "7 random ones",
    ):
        assert told in text
    for told in ("epsilon 1e-6", "seed 42", "batch of 32", "212 evaluations", "float64", "4.0e-8"):
        assert told in text


@pytest.mark.parametrize(
    ("method", "told"),
    [("directions", "directions (4 random ones a variable)"), ("full", "full (every coordinate)")],
)
def test_method(render: Callable[[GradientReport], str], method: str, told: str) -> None:
    """The method is named as in the options, and explained."""
    assert told in render(dataclasses.replace(PASSING, settings=Settings(method=method)))


def test_worst_coordinates(render: Callable[[GradientReport], str]) -> None:
    """A failing variable shows where it is wrong: index, both derivatives, error bar, ratio."""
    text = render(FAILING)
    for told in ("[3]", "0.0123450", "0.0246900", "± 2.0e-12", "2.00", "[77]", "-1.00"):
        assert told in text
    assert "Wrong by a constant factor." in text


def test_culprits_notes_frozen(render: Callable[[GradientReport], str]) -> None:
    """The culprit, every note, the frozen variables and what is expected are shown."""
    text = render(
        dataclasses.replace(
            FAILING,
            culprits=("swish",),
            notes=("First note.", "Second note."),
            frozen=("bn/moving_mean", "bn/moving_variance"),
            settings=Settings(expected_mismatch=("quantizer/*",)),
        )
    )
    for told in (
        "culprit",
        "swish",
        "First note.",
        "Second note.",
        "bn/moving_mean",
        "quantizer/*",
    ):
        assert told in text
    assert "2 variables" in text


def test_many_frozen_variables_are_only_counted(render: Callable[[GradientReport], str]) -> None:
    """A frozen backbone does not fill the page with names."""
    text = render(dataclasses.replace(PASSING, frozen=tuple(f"base/{n}" for n in range(300))))
    assert "300 variables" in text
    assert "base/7" not in text


def test_errors_are_shown(render: Callable[[GradientReport], str]) -> None:
    """A check that could not be made says why, and claims neither pass nor failure."""
    text = render(ERROR)
    assert "The debug batch must fit the model." in text
    assert "could not be carried out" in text
    assert "variables pass" not in text


def test_a_declared_mismatch_is_neither_pass_nor_failure(
    render: Callable[[GradientReport], str],
) -> None:
    """A declared mismatch is called declared, whatever its verdict, and the report passes."""
    for verdict in (Verdict.FAIL, Verdict.PASS):
        codebook = variable("vq/codebook", 0.9, reason="declared", verdict=verdict)
        text = render(report(variable("dense/kernel"), codebook))
        assert "1 pass, 1 declared" in text
        rows = re.findall(r"<tr>.*?</tr>", text, re.DOTALL) or text.split("\n")
        row = next(each for each in rows if "codebook" in each)
        assert "declared" in row
        assert "fail" not in row
        assert "pass" not in row


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_non_finite_numbers(render: Callable[[GradientReport], str], value: float) -> None:
    """NaN and infinity are written as such, in the table and among the coordinates."""
    broken = variable(
        "dense/kernel",
        math.nan,
        verdict=Verdict.FAIL,
        reason="non_finite",
        analytic_norm=value,
        worst=(Coordinate((0, 1), value, 1.0, math.nan),),
    )
    text = render(report(broken))
    assert len(re.findall(rf"(?<![\w-]){value}(?!\w)", text)) >= 2
    assert "NaN or infinity" in text


def test_every_failing_variable_is_shown(render: Callable[[GradientReport], str]) -> None:
    """Rows are only left out when they pass: 50 failures are 50 rows."""
    found = report(*(variable(f"bad_{n}/w", 0.5) for n in range(50)), variable("good/w"))
    text = render(found)
    assert all(f"bad_{n}/" in text for n in range(50))
    assert "1 more variable, all pass" in text


def test_names_are_taken_as_they_are(render: Callable[[GradientReport], str]) -> None:
    """Brackets in a name are no markup, and control characters do not reach the terminal."""
    text = render(report(variable("[red]x[/red]/w\x1b[31m\x07"), model="[bold]m"))
    text = text.replace("<wbr>", "")
    assert "[red]x[/red]/" in re.sub(r"</?(b|span)[^>]*>", "", text)
    assert "[bold]m" in text
    assert "\x1b" not in text
    assert "\x07" not in text


# The console.


def test_kernel_and_bias_have_a_row_each() -> None:
    """The classical question, dW or db, is answered by two neighbouring rows."""
    lines = report_text(FAILING).split("\n")
    bias = next(n for n, line in enumerate(lines) if line.startswith("  dense/bias "))
    assert "✗ fail" in lines[bias]
    assert "3.3e-1" in lines[bias]
    assert lines[bias + 1].startswith("  dense/kernel ")
    assert "✓ pass, great" in lines[bias + 1]


def test_columns() -> None:
    """A row tells path, shape, score, verdict with band, both norms and the error bar."""
    text = report_text(PASSING)
    assert row_of("dense/bias", text).split() == (
        ["dense/bias", "3×2", "3.0e-6", "✓", "pass,", "okay", "1.50", "1.75", "4e-11"]
    )


def test_reasons_stand_beside_the_verdict() -> None:
    """A verdict that is not the band of the score says why, and the reason is explained."""
    text = report_text(
        report(
            variable("gate/kernel", 0.02, verdict=Verdict.PASS, reason="kink"),
            variable(
                "key/bias",
                0.4,
                verdict=Verdict.INCONCLUSIVE,
                reason="below_resolution",
                detectable_error=0.25,
            ),
        )
    )
    assert "✓ pass, kink" in text
    assert "The loss has a kink here" in text
    assert "below resolution" in text
    assert "would have seen: 0.25" in " ".join(text.split())


@pytest.mark.parametrize("width", [80, 100, 110])
def test_long_names_keep_their_end(width: int) -> None:
    """However long a path, its end is readable, the numbers are whole and every line fits."""
    blocks = "/".join(["vision_transformer_base_patch16"] * 9)
    found = report(
        variable(f"{blocks}/query/kernel_of_the_query", 0.5),
        variable(f"{'x' * 300}_end/bias"),
        variable("层" * 60 + "/权重"),
    )
    text = report_text(found, width=width)
    assert max(cell_len(line) for line in text.split("\n")) <= width
    assert "kernel_of_the_query" in text
    assert "_end/bias" in text
    assert "/权重" in text.replace("\n", "").replace(" ", "")
    assert text.count("4e-11") == text.count("3×2") == 3


@pytest.mark.parametrize("width", [80, 90, 100, 110])
def test_numbers_are_never_cut(width: int) -> None:
    """At every width the numbers of the table are whole."""
    wide = variable(
        "layer/kernel",
        1.23456e-11,
        shape=(12, 64, 768),
        analytic_norm=-1.234e-100,
        numerical_norm=math.inf,
        error_bar=5e-300,
    )
    row = row_of("layer/kernel", report_text(report(wide), width=width))
    assert "…" not in row
    assert {"12×64×768", "1.2e-11", "inf", "5e-300"} <= set(row.split())


def test_large_models_are_cut_to_what_fits() -> None:
    """Of 300 variables 30 have a row, the failing ones among them, and the rest is counted."""
    many = [variable(f"layer_{n}/w", 1e-9 * (n + 1)) for n in range(299)]
    found = report(*many, variable("bad/w", 0.5))
    text = report_text(found)
    assert "Of 300 variables: 1 fail, 299 pass." in text
    assert len(re.findall(r"^  layer_\d+/w ", text, re.MULTILINE)) == 29
    assert "  … and 270 more variables, all pass" in text
    assert row_of("bad/w", text)


def test_show_all() -> None:
    """On request every variable has a row, and nothing is said to be left out."""
    text = report_text(report(*(variable(f"layer_{n}/w") for n in range(300))), show_all=True)
    assert len(re.findall(r"^  layer_\d+/w ", text, re.MULTILINE)) == 300
    assert "more variable" not in text


def test_siblings_of_a_failure_survive_the_cut() -> None:
    """In a large model the passing kernel beside a failing bias is still shown."""
    many = [variable(f"layer_{n}/w", 9e-6) for n in range(100)]
    text = report_text(report(*many, WRONG_BIAS, variable("dense/kernel", 1e-15)))
    assert row_of("dense/kernel", text)


def test_text_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Text for files and logs has no terminal codes, even where colour is forced."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b" not in report_text(FAILING) + history_text(RUN)
    assert not any(line.endswith(" ") for line in report_text(FAILING).split("\n"))


def test_colour_changes_no_word() -> None:
    """On a terminal the report has colours and says the same."""
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, color_system="standard", width=100)
    print_report(FAILING, console)
    coloured = output.getvalue()
    assert "\x1b[" in coloured
    plain = re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert plain.split() == report_text(FAILING, width=100).split()


def test_history() -> None:
    """Each checkpoint is one line: step, name, verdict, worst score, failing layers, seconds."""
    lines = history_text(RUN).split("\n")
    assert len(lines) == 2 + len(RUN)
    assert lines[2].split() == ["0", "epoch", "0", "✓", "pass", "3.0e-6", "1.3"]
    assert lines[3].split()[:5] == ["100", "epoch", "1", "⊘", "error"]
    assert "The debug batch must fit the model." in lines[3]
    assert lines[5].split() == ["300", "epoch", "3", "✗", "fail", "3.3e-1", "dense", "1.3"]


def test_print_history() -> None:
    """The printed history is the text of the history."""
    output = io.StringIO()
    print_history(RUN, Console(file=output, width=100))
    assert output.getvalue().split() == history_text(RUN, width=100).split()


# What to do.


def test_advice_starts_at_the_culprit() -> None:
    """The first step names the layer whose own backward pass is wrong."""
    first = advice(dataclasses.replace(FAILING, culprits=("swish",)))[0]
    assert first.startswith("Start with `swish`")


def test_advice_without_a_culprit() -> None:
    """Without a culprit the first step is the failing layer nearest to the loss."""
    found = report(variable("a/w", 0.5), variable("b/w", 0.5), variable("c/w"))
    assert "here `b`" in advice(found)[0]


def test_advice_tells_dw_from_db() -> None:
    """When only the bias of a layer fails, the advice says so."""
    assert any("`dense` only `bias` is wrong while `kernel` is right" in s for s in advice(FAILING))
    both = report(variable("dense/kernel", 0.5), variable("dense/bias", 0.5))
    assert not any("is wrong while" in sentence for sentence in advice(both))


def test_advice_does_not_blame_a_layer_before_the_origin() -> None:
    """A layer that fails before another failing one is not said to have a wrong formula."""
    before = (variable("conv/kernel", 0.5), variable("conv/bias"))
    after = (variable("dense/kernel", 0.5), variable("dense/bias", 0.5))
    told = " ".join(advice(report(*before, *after)))
    assert "here `dense`" in told
    assert "is wrong while" not in told


def test_advice_takes_no_unused_variable_for_a_right_one() -> None:
    """A variable that passes because it hardly matters says nothing of the one that fails."""
    small = variable("dense/bias", math.nan, verdict=Verdict.PASS, reason="below_resolution")
    told = " ".join(advice(report(variable("dense/kernel", 0.5), small)))
    assert "is wrong while" not in told


@pytest.mark.parametrize(
    ("reason", "told"), [("blocked", "what blocks the gradient"), ("non_finite", "NaN or infinity")]
)
def test_advice_on_reasons(reason: str, told: str) -> None:
    """Blocked and non-finite gradients get advice of their own, and only they do."""
    broken = variable("dense/kernel", math.nan, verdict=Verdict.FAIL, reason=reason)
    assert told in " ".join(advice(report(broken)))
    assert told not in " ".join(advice(FAILING))


def test_advice_on_what_is_in_no_layer() -> None:
    """What is in no layer is not said to have been checked alone."""
    told = " ".join(advice(dataclasses.replace(FAILING, culprits=("train_step",))))
    assert told.startswith("Start with `train_step`: no layer is wrong by itself")
    assert "checked alone" not in told


def test_advice_on_other_layers_where_there_are_some() -> None:
    """Other failing layers are spoken of where there are any: a layer by itself has none."""
    one = report(variable("dense/kernel", 0.5))
    told = " ".join(advice(dataclasses.replace(one, culprits=("dense",))))
    assert "Start with `dense`" in told
    assert "ther failing layers" not in told
    two = report(variable("before/kernel", 0.5), variable("dense/kernel", 0.5))
    told = " ".join(advice(dataclasses.replace(two, culprits=("dense",))))
    assert "Other failing layers may only receive" in told


def test_advice_on_a_layer_by_itself_without_a_culprit() -> None:
    """A layer that was checked by itself has no loss and no train_step to look at."""
    alone = report(variable("dense/kernel", 0.5))
    alone = dataclasses.replace(
        alone, objective=dataclasses.replace(alone.objective, source="layer")
    )
    assert advice(alone)[0] == "The mistake is in this layer: nothing else was differentiated."


def test_more_directions_help_where_the_score_is_in_doubt() -> None:
    """More directions are advised for suspect scores, not for what the step does."""
    untrained = variable("dense/bias", math.nan, verdict=Verdict.SUSPECT, reason="untrained")
    doubtful = variable("dense/kernel", 1e-4, verdict=Verdict.SUSPECT)
    (told,) = advice(report(untrained))
    assert "more directions" not in told
    assert "the derivatives themselves are right" in told
    again, step = advice(report(untrained, doubtful))
    assert again.startswith("Look again at `dense/kernel`: check with more directions")
    assert step.startswith("Look at what the training step does")
    assert "are right" not in step
    latent = variable("dense/kernel", 0.0, verdict=Verdict.SUSPECT)
    told = " ".join(advice(dataclasses.replace(report(latent), culprits=("swish",))))
    assert "Start with `swish`" in told
    assert "more directions" not in told


def test_advice_on_failures_and_the_step() -> None:
    """Where a derivative is wrong and the step leaves something out, both are advised on."""
    untrained = variable("dense/bias", math.nan, verdict=Verdict.SUSPECT, reason="untrained")
    told = advice(report(untrained, variable("dense/kernel", 0.5)))
    assert told[0].startswith("Start with")
    assert told[-1].startswith("Look at what the training step does")


def test_a_pattern_is_not_to_be_looked_for_again() -> None:
    """Coordinates need not be compared where their pattern is told, or where there is no slope."""
    coordinate = Coordinate((0,), 1.0, 2.0, 1e-9)
    plain = variable("dense/kernel", 0.5, worst=(coordinate,))
    factor = dataclasses.replace(plain, pattern="The numerical gradient is 2 times the tape's.")
    assert any("Compare the worst" in step for step in advice(report(plain)))
    assert not any("Compare the worst" in step for step in advice(report(factor)))


def test_a_note_says_it_alone() -> None:
    """What a note says of a variable is not said again in the words for its reason."""
    broken = variable("dense/kernel", math.nan, verdict=Verdict.FAIL, reason="blocked")
    noted = dataclasses.replace(broken, note="Blocked by `ArgMax` at train.py:57 in `pick`.")
    assert words.variable_sentences(noted) == (noted.note,)
    assert "cuts the gradient off" in words.variable_sentences(broken)[0]


def test_advice_on_unit_tests() -> None:
    """Where a test of the culprit can be made it is named, but not beside a layer checked alone."""
    evidence = Case(Evidence("swish", "swish", Settings()), check_alone)
    found = dataclasses.replace(FAILING, culprits=("swish",), evidence=(evidence,))
    assert '`report.reproduce("tests")`' in advice(found)[1]
    refused = (
        Case(Evidence("swish", "swish", Settings(), refusal="It has no config."), check_alone),
    )
    alone = dataclasses.replace(found.objective, source="layer")
    for other in ({"evidence": refused}, {"objective": alone}, {"evidence": ()}):
        assert "reproduce" not in " ".join(advice(dataclasses.replace(found, **other)))


def test_no_advice_where_all_is_well() -> None:
    """A report that passes asks for nothing."""
    assert advice(PASSING) == ()


# The page.


class Outline(HTMLParser):
    """Checks that tags are balanced, and notes the tags, their attributes and the texts."""

    VOID = ("meta", "wbr", "br")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def having(self, tag: str, css_class: str) -> list[dict[str, str | None]]:
        """Attributes of the tags with this class."""
        return [
            attributes
            for name, attributes in self.tags
            if name == tag and css_class in (attributes.get("class") or "").split()
        ]


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


# The grid behind both heatmaps.


def test_grid() -> None:
    """Rows are variables in model order, columns are checks, cells hold what was found."""
    grid = build_grid(RUN)
    assert grid.rows == ("conv/kernel", "dense/kernel", "dense/bias")
    assert (grid.columns, grid.axis) == (("0", "100", "200", "300", "400"), "step")
    kinds = [[cell.kind for cell in row] for row in grid.cells]
    assert kinds[0] == ["great", "error", "great", "great", "great"]
    assert kinds[2] == ["okay", "error", "okay", "fail", "fail"]
    assert grid.cells[2][3].digits == pytest.approx(-math.log10(0.33))


def test_grid_cells_follow_the_verdict_not_the_score() -> None:
    """A kink that passes is no failure, and a declared mismatch stays declared."""
    found = report(
        variable("a/w", 0.5, verdict=Verdict.PASS, reason="kink"),
        variable("b/w", 0.5, reason="declared"),
        variable("c/w", 1e-12, verdict=Verdict.FAIL, reason="blocked"),
        variable("d/w", 0.5, verdict=Verdict.INCONCLUSIVE, reason="below_resolution"),
        variable("e/w", math.nan, verdict=Verdict.FAIL, reason="non_finite"),
    )
    cells = [row[0] for row in build_grid([found]).cells]
    assert [c.kind for c in cells] == ["great", "declared", "fail", "inconclusive", "fail"]
    assert [cell.text for cell in cells] == ["✓", "~", "✗ 12.0", "?", "✗ nan"]


def test_grid_with_variables_that_come_and_go() -> None:
    """A variable that a check did not see is absent there, neither passing nor failing."""
    runs = training(report(variable("a/w")), report(variable("a/w"), variable("b/w")))
    grid = build_grid(runs)
    assert [[cell.kind for cell in row] for row in grid.cells] == [
        ["great", "great"],
        ["absent", "great"],
    ]


def test_grid_of_a_large_model() -> None:
    """Above 40 variables rows are layers; above 60 layers the failing ones are kept."""
    few = report(*(variable(f"layer_{n}/{name}") for n in range(20) for name in "wb"))
    assert (build_grid([few]).unit, len(build_grid([few]).rows)) == ("variable", 40)
    scores = {77: 0.5}
    many = report(*(variable(f"layer_{n}/w", scores.get(n, 1e-9)) for n in range(100)))
    grid = build_grid([many])
    assert (grid.unit, len(grid.rows), grid.omitted) == ("layer", 60, 40)
    failing = [
        path for path, row in zip(grid.rows, grid.cells, strict=True) if row[0].kind == "fail"
    ]
    assert failing == ["layer_77"]


def test_grid_without_steps() -> None:
    """Outside training the columns are named or numbered."""
    plain = dataclasses.replace(PASSING, step=None, checkpoint="")
    grid = build_grid([plain, dataclasses.replace(plain, checkpoint="end")])
    assert (grid.columns, grid.axis) == (("#1", "end"), "checkpoint")


@pytest.mark.parametrize(
    ("checks", "verdict", "told"),
    [
        ([PASSING], "pass", "pass"),
        ([PASSING, PASSING], "pass", "pass in all 2 checks"),
        ([PASSING, FAILING], "fail", "fail since epoch 1 (step 100)"),
        ([FAILING, ERROR], "fail", "fail in 1 of 2 checks, first at epoch 0 (step 0)"),
        ([PASSING, ERROR], "error", "error since epoch 1 (step 100)"),
    ],
)
def test_overall(checks: Sequence[GradientReport], verdict: str, told: str) -> None:
    """A wrong gradient outweighs a check that could not be made, and both outweigh passes."""
    assert overall(training(*checks)) == (verdict, told)


@pytest.mark.parametrize("show", [build_grid, overall, report_page, heatmap, heatmap_png])
def test_nothing_to_show(show: Callable[[Sequence[GradientReport]], object]) -> None:
    """Without a report there is an error in one line that says what to give."""
    with pytest.raises(ArgumentError, match=r"^There must be a report to show\. Received: "):
        show([])


# The picture.


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


# All of it.


def test_what_rendering_imports() -> None:
    """Rendering needs neither TensorFlow nor MLflow, and leaves pyplot and its state alone."""
    program = (
        "import sys, tfcheck.rendering.console, tfcheck.rendering.html, tfcheck.rendering.plots\n"
        "print(sorted({'tensorflow', 'keras', 'mlflow', 'matplotlib.pyplot', 'matplotlib.figure'}"
        " & set(sys.modules)))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert ran.stdout.strip() == "['matplotlib.figure']"


NUMBERS = st.floats()
VARIABLES = st.builds(
    VariableReport,
    path=st.text(max_size=60),
    layer=st.text(max_size=20),
    shape=st.lists(st.integers(0, 99), max_size=4).map(tuple),
    score=NUMBERS,
    verdict=st.sampled_from(Verdict),
    reason=st.sampled_from(Reason) | st.text(max_size=5),
    analytic_norm=NUMBERS,
    numerical_norm=NUMBERS,
    error_bar=NUMBERS,
    worst=st.lists(
        st.builds(Coordinate, st.just((1, 2)), NUMBERS, NUMBERS, NUMBERS), max_size=3
    ).map(tuple),
    detectable_error=NUMBERS,
    note=st.text(max_size=20),
    precision_error=NUMBERS,
    trained_norm=NUMBERS,
    compiled_distance=st.none() | NUMBERS,
)
REPORTS = st.builds(
    GradientReport,
    verdict=st.sampled_from(Verdict),
    score=NUMBERS,
    layers=st.lists(
        st.builds(
            LayerReport,
            st.text(max_size=20),
            NUMBERS,
            st.sampled_from(Verdict),
            st.lists(VARIABLES, max_size=4).map(tuple),
        ),
        max_size=4,
    ).map(tuple),
    culprits=st.lists(st.text(max_size=9), max_size=2).map(tuple),
    notes=st.lists(st.text(max_size=9), max_size=2).map(tuple),
    objective=st.builds(ObjectiveSummary, losses=st.lists(NUMBERS, max_size=2).map(tuple)),
    step=st.none() | st.integers(0, 10**9),
    checkpoint=st.text(max_size=9),
    seconds=NUMBERS,
    error=st.text(max_size=20),
    model=st.text(max_size=20),
)


@given(st.lists(REPORTS, min_size=1, max_size=4))
def test_any_report_can_be_shown(reports: list[GradientReport]) -> None:
    """Whatever a report holds, every text and page of it can be made and is well formed."""
    assert "\x1b" not in report_text(reports[0], width=80) + history_text(reports)
    Outline(report_fragment(reports[0]))
    Outline(report_page(reports))


@settings(max_examples=15)
@given(st.lists(REPORTS, min_size=1, max_size=4))
def test_any_report_can_be_drawn(reports: list[GradientReport]) -> None:
    """Whatever a report holds, it has a picture."""
    assert size_of(heatmap_png(reports, dpi=30)) > (0, 0)


# Numbers in words.


@given(st.floats(min_value=1e-300, max_value=1e300), st.booleans(), st.integers(1, 6))
def test_numbers_say_their_value(value: float, negative: bool, places: int) -> None:
    """A number as shown is the value to the digits shown."""
    value = -value if negative else value
    assert float(words.number(value, places)) == pytest.approx(value, rel=5 * 10.0**-places)
    assert float(words.scientific(value, places)) == pytest.approx(value, rel=10.0**-places)


@given(st.floats(min_value=1e-12, max_value=1))
def test_thresholds_are_shown_exactly_enough(value: float) -> None:
    """A threshold as shown is the threshold to six digits, and never padded."""
    assert float(words.limit(value)) == pytest.approx(value, rel=1e-6)
    assert not re.search(r"\.\d*0e|\.e|e[-+]0\d", words.limit(value))


@given(st.text() | st.text(alphabet="ab/", min_size=9), st.integers(8, 60))
def test_shortening_keeps_the_end(path: str, width: int) -> None:
    """A shortened path fits, and what is left of it is the end of the path."""
    short = words.shortened(path, width)
    assert len(short) <= max(width, 1)
    assert path.endswith(short.removeprefix("…") if short != path else path)


@given(st.floats(min_value=0, max_value=1e10), st.floats(min_value=0, max_value=1e10))
def test_digits_fall_as_the_score_rises(one: float, other: float) -> None:
    """Digits of agreement stay within 0 to 16 and never rise with the score."""
    low, high = sorted((one, other))
    assert 16 >= digits(low) >= digits(high) >= 0


@pytest.mark.parametrize(
    ("score", "expected"),
    [(1e-3, 3), (1e-7, 7), (1.0, 0), (5.0, 0), (0.0, 16), (1e-20, 16), (5e-324, 16)],
)
def test_digits(score: float, expected: float) -> None:
    """Digits are −log10 of the score, between 0 and 16."""
    assert digits(score) == pytest.approx(expected)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_no_digits_of_the_unknown(score: float) -> None:
    """A score that is not finite is no agreement: it draws at the bottom, not as a gap."""
    assert digits(score) == 0
