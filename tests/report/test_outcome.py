from __future__ import annotations

import copy
import dataclasses
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from any_report import REPORTS
from hypothesis import given
from hypothesis import strategies as st

from tfcheck.errors import ReportError
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict
from tfcheck.report.rows import (
    Coverage,
    LayerReport,
    ObjectiveSummary,
    VariableReport,
)


def variable(path: str, verdict: str, score: float, reason: str = "") -> VariableReport:
    """A variable with this finding."""
    layer = path.rpartition("/")[0]
    return VariableReport(path, layer, (3, 2), score, Verdict(verdict), reason, 1.0, 1.0, 1e-11)


def report(*variables: VariableReport) -> GradientReport:
    """A report on these variables, each in a layer of its own."""
    layers = tuple(LayerReport(v.layer, v.score, v.verdict, (v,)) for v in variables)
    objective = ObjectiveSummary("train_step", "train", (0.5,), 1e-9)
    return GradientReport(Verdict.PASS, 1e-9, layers, (), (), objective)


@given(REPORTS)
def test_a_saved_report_comes_back_as_it_was(original: GradientReport) -> None:
    """Through strict JSON and back, every field has its value and its type, nan and inf too."""
    text = json.dumps(original.to_dict(), allow_nan=False)
    # repr tells 1 from 1.0, a list from a tuple, a verdict from its word; and nan equals nan.
    assert repr(GradientReport.from_dict(json.loads(text))) == repr(original)


@given(REPORTS)
def test_files_round_trip(
    tmp_path_factory: pytest.TempPathFactory, original: GradientReport
) -> None:
    """`save` writes what `load` reads, and says where."""
    path = tmp_path_factory.getbasetemp() / "report.json"
    assert original.save(path) == path
    assert repr(GradientReport.load(str(path))) == repr(original)


def test_files_are_strict_json(tmp_path: Path) -> None:
    """Parsers that know no NaN, such as a browser's, read a report with nan and inf."""
    broken = report(variable("dense/kernel", "fail", math.nan, "non_finite"))
    broken = dataclasses.replace(broken, score=math.inf, seconds=-math.inf)
    text = broken.save(tmp_path / "report.json").read_text(encoding="utf-8")

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    content = json.loads(text, parse_constant=refuse)
    assert (content["score"], content["seconds"]) == ("inf", "-inf")
    assert content["layers"][0]["variables"][0]["score"] == "nan"


@pytest.mark.parametrize("content", ["", "{", "[1, 2", "\x00", '"text"', "[]", "null", "{}"])
def test_files_that_are_no_report(tmp_path: Path, content: str) -> None:
    """A file with something else in it is refused in one line that says what to do."""
    path = tmp_path / "report.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ReportError, match=r"^A .+ Received: .+\.$") as caught:
        GradientReport.load(path)
    assert "\n" not in str(caught.value)


def test_binary_file(tmp_path: Path) -> None:
    """A file that is not even text is refused the same way."""
    path = tmp_path / "report.json"
    path.write_bytes(b"\xff\xfe\x80")
    with pytest.raises(ReportError, match="must be a readable JSON file"):
        GradientReport.load(path)


def test_missing_file(tmp_path: Path) -> None:
    """A path without a file is named in the error."""
    with pytest.raises(ReportError, match=r"Received: path='.*gone\.json' \(FileNotFoundError\)"):
        GradientReport.load(tmp_path / "gone.json")


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_other_schemas(schema: object) -> None:
    """A report of another schema is refused, and the error names the schema received."""
    content = {**report().to_dict(), "schema": schema}
    with pytest.raises(ReportError, match=rf"has schema 1\. Received: schema={schema!r}\."):
        GradientReport.from_dict(content)


def test_missing_fields() -> None:
    """Without any one of its required fields, at any depth, a report is refused."""
    whole = report(variable("dense/kernel", "pass", 1e-9)).to_dict()
    required = {
        (): ("verdict", "score", "layers", "culprits", "notes", "objective", "settings"),
        ("objective",): ("source", "phase", "losses", "parity"),
        ("settings",): ("thresholds", "expected_mismatch"),
        ("layers", 0): ("path", "score", "verdict", "variables"),
        ("layers", 0, "variables", 0): ("path", "layer", "shape", "score", "verdict", "worst"),
    }
    for route, names in required.items():
        for name in names:
            content = copy.deepcopy(whole)
            place: Any = content
            for step in route:
                place = place[step]
            del place[name]
            with pytest.raises(ReportError, match="must hold every field"):
                GradientReport.from_dict(content)


def test_unknown_fields() -> None:
    """A field this version does not know is refused, not dropped."""
    content = report().to_dict()
    content["settings"]["surprise"] = 1
    with pytest.raises(ReportError, match="surprise"):
        GradientReport.from_dict(content)


JUNK = st.sampled_from([None, True, 7, 10**400, -1.5, "junk", [], [None], ["x"], {}, {"x": 1}])


@hypothesis.settings(max_examples=400)
@given(st.data())
def test_junk_never_escapes_as_another_error(data: st.DataObject) -> None:
    """Whatever a field holds, reading gives a report or a ReportError and nothing else."""
    content = report(variable("dense/kernel", "pass", 1e-9)).to_dict()
    place: Any = content
    while True:
        key = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else [0]))
        if not (isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans())):
            break
        place = place[key]
    place[key] = data.draw(JUNK)
    try:
        read = GradientReport.from_dict(content)
    except ReportError:
        return
    assert isinstance(read, GradientReport)


def test_worst_first() -> None:
    """Failures lead, then suspects, then inconclusives; scores decide within a verdict."""
    ordered = [
        variable("a/w", "fail", math.nan, "non_finite"),
        variable("b/w", "fail", 0.9),
        variable("c/w", "fail", 0.1),
        variable("d/w", "suspect", 1e-4),
        variable("e/w", "inconclusive", 0.99),
        variable("f/w", "pass", 1e-6),
        variable("g/w", "pass", 1e-9),
        variable("h/w", "fail", 1.0, "declared"),
    ]
    shuffled = [ordered[place] for place in (7, 3, 5, 1, 6, 0, 4, 2)]
    assert list(report(*shuffled).worst_first) == ordered


def test_worst_first_keeps_model_order_among_equals() -> None:
    """Variables that are equally bad stay in model order."""
    equals = [variable(f"layer_{place}/w", "pass", 1e-9) for place in range(5)]
    assert list(report(*equals).worst_first) == equals


def test_count() -> None:
    """Each verdict counts its variables, and a declared mismatch counts nowhere."""
    found = report(
        variable("a/w", "fail", 0.5),
        variable("b/w", "pass", 1e-9),
        variable("c/w", "pass", 1e-9),
        variable("d/w", "fail", 0.9, "declared"),
    )
    counted = {verdict: found.count(verdict) for verdict in Verdict}
    assert counted == {
        Verdict.FAIL: 1,
        Verdict.PASS: 2,
        Verdict.SUSPECT: 0,
        Verdict.INCONCLUSIVE: 0,
        Verdict.ERROR: 0,
    }


def test_failing_layers() -> None:
    """The failing layers are those with verdict fail, in model order."""
    found = report(
        variable("b/w", "fail", 0.5),
        variable("c/w", "suspect", 1e-4),
        variable("a/w", "fail", 0.9),
    )
    assert found.failing_layers == ("b", "a")


def test_names_and_sizes() -> None:
    """A variable knows its name within its layer and how many entries it has."""
    scalar = dataclasses.replace(variable("block/gate/alpha", "pass", 0.0), shape=())
    assert (scalar.layer, scalar.name, scalar.size) == ("block/gate", "alpha", 1)
    assert variable("dense/kernel", "pass", 0.0).size == 6


def test_reports_are_frozen() -> None:
    """No field of a report, at any depth, can be assigned."""
    found = report(variable("dense/kernel", "pass", 1e-9))
    parts = (found, found.layers[0], found.variables[0], found.objective, found.settings)
    for part in parts:
        name = dataclasses.fields(part)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(part, name, None)


def test_dataframe() -> None:
    """One row a variable in model order, columns as in VariableReport, verdicts as words."""
    found = report(
        variable("dense/kernel", "pass", 1e-9), variable("dense/bias", "fail", math.nan, "blocked")
    )
    frame = found.to_dataframe()
    assert list(frame["path"]) == ["dense/kernel", "dense/bias"]
    assert list(frame["verdict"]) == ["pass", "fail"]
    assert {type(word) for word in frame["verdict"]} == {str}
    assert list(frame["reason"]) == ["", "blocked"]
    assert frame["score"].isna().tolist() == [False, True]
    expected = {field.name for field in dataclasses.fields(VariableReport)} - {
        "worst",
        "slopes",
        "curves",
    }
    assert set(frame.columns) == expected


def test_dataframe_of_nothing() -> None:
    """A report without variables gives an empty table with the same columns."""
    frame = report().to_dataframe()
    assert len(frame) == 0
    assert "score" in frame.columns


def test_str_and_notebook_show_the_report() -> None:
    """Printing a report shows its variables, and a notebook gets HTML."""
    found = report(variable("dense/kernel", "pass", 1e-9))
    assert "dense/kernel" in str(found)
    assert found._repr_html_().startswith("<div")


def row(path: str, score: float, reason: str = "", shape: tuple[int, ...] = (4,)) -> VariableReport:
    """A passing variable."""
    return VariableReport(path, "layer", shape, score, Verdict.PASS, reason, 1.0, 1.0, 1e-9)


def test_coverage_is_the_share_that_was_compared() -> None:
    """What is too small to be seen, or unused, was not compared; what is wrong was."""
    blocked = replace(row("d", math.nan, "blocked"), verdict=Verdict.FAIL)
    rows = (
        row("a", 1e-9, shape=(2, 3)),
        row("b", math.nan, "below_resolution", (6,)),
        row("c", 0.0, "unused", (2,)),
        replace(blocked, shape=(6,)),
    )
    layers = (LayerReport("layer", 1e-9, Verdict.FAIL, rows),)
    report = GradientReport(
        Verdict.FAIL, 1e-9, layers, (), (), ObjectiveSummary("train_step", "train")
    )
    assert report.coverage == Coverage(variables=0.5, parameters=0.6)
    assert math.isnan(replace(report, layers=()).coverage.variables)
