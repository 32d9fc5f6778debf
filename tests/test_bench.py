from __future__ import annotations

import ast
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner
from rich.console import Console

from tfcheck.scripts.bench import __main__ as command
from tfcheck.scripts.bench import (
    account,
    beside_training,
    depth,
    directions,
    growth,
    memory,
    networks,
    plots,
    processes,
    results,
    table,
)
from tfcheck.scripts.bench.cases import (
    QUICK,
    TINY_CNN,
    TINY_MLP,
    WRONG_LAYER,
    Case,
    Effort,
    application,
    residual,
)
from tfcheck.scripts.bench.processes import ask, installed
from tfcheck.scripts.bench.results import Row, Section, Subject

BENCH = Path(processes.__file__).parent
SLOPE = [Row("batch, directions", f"{n}", 0.01 * n, own=True, size=n) for n in (2, 20, 200)]
DEEP = [
    Row(depth.RIGHT, f"{n} layers", 0.02 + 0.003 * n, ratio=30.0, own=True, size=n)
    for n in (2, 20, 200)
]
ANSWER: processes.Answer = {
    "parameters": 9876,
    "first_step": 8.0,
    "step_bytes": 2**20,
    "step": 0.02,
    "tracing": 2.0,
    "first_check": 3.0,
    "check_bytes": 2**21,
    "forward": 0.01,
    "repeated": 0.4,
    "runs": 3,
    "evaluations": 18,
    "variables": 20,
    "compared": 19,
    "verdict": "fail",
    "culprits": [f"model/{WRONG_LAYER}"],
}
"""What the process of a failing network tells."""
MACHINE = {"CPUs": "2 × Example", "tensorflow": "2.18.0", "torch": "not installed"}


def section(name: str = "coordinates", **fields: Any) -> Section:
    """A canned section."""
    made = Section(
        name=name,
        title=f"Title of {name}",
        how="By hand.",
        ratio="× tfcheck",
        plotted="per_parameter",
        logarithmic=True,
        date="2001-02-03",
        command="python -m tfcheck.scripts.bench",
        quick=False,
        seconds=12.0,
        machine=MACHINE,
        rows=(
            Row("MLP", "tfcheck full", 2.0, per_parameter=2e-5, own=True).at_most(3, 2.0, "s"),
            Row("MLP", "slow peer", 150.0, per_parameter=1.5e-3, ratio=75.0).at_least(50, 75.0),
            Row("MLP", "quick peer", 20.0, per_parameter=2e-4, ratio=10.0).at_least(50, 10.0),
            Row("MLP", "loop", per_parameter=3e-3, ratio=150.0, note="sample of 7 of 99 entries"),
            Row("MLP", "absent | peer", note="not installed").at_least(50, None),
        ),
    )
    return replace(made, **fields)


def test_markdown_says_it_all() -> None:
    """Numbers with units, goals met, missed and open, samples, and what is missing."""
    lines = table.markdown({"coordinates": section()}).splitlines()
    rows = [line for line in lines if line.startswith("| MLP")]
    assert "| model | measured | result | per parameter | × tfcheck | goal | note |" in lines
    assert rows[0] == "| MLP | tfcheck full | 2 s | 20 µs |  | ≤ 3 s ✓ |  |"
    assert rows[1] == "| MLP | slow peer | 150 s | 1.5 ms | 75 | ≥ 50 × ✓ |  |"
    assert "≥ 50 × ✗" in rows[2]
    assert rows[3] == "| MLP | loop |  | 3 ms | 150 |  | sample of 7 of 99 entries |"
    assert rows[4] == r"| MLP | absent \| peer |  |  |  | ≥ 50 × ? | not installed |"
    assert "Measured on CPUs 2 × Example, tensorflow 2.18.0, torch not installed." in lines
    assert "![Title of coordinates](coordinates.svg)" in lines


def test_a_trial_is_called_one() -> None:
    """A quick run judges no goal and says so; so does a section measured by itself."""
    quick = table.markdown({"coordinates": section(quick=True, command="bench --quick")})
    assert "A trial with --quick" in quick
    assert "✓" not in quick
    assert "✗" not in quick
    alone = table.markdown({"coordinates": section(command="bench --only coordinates")})
    assert "Measured by itself, with --only." in alone
    assert "--only" not in table.markdown({"coordinates": section()})


def test_a_busy_machine_is_told() -> None:
    """Times taken beside other work are marked."""
    assert "busy" in table.circumstances(section(load=2.0))
    assert "busy" not in table.circumstances(section(load=0.1))


def test_machines_that_differ_are_told_apart() -> None:
    """Sections that were measured on different machines each name their own."""
    other = section("steps", machine={"CPUs": "8 × Other"})
    page = table.markdown({"coordinates": section(), "steps": other})
    assert page.index("2 × Example") < page.index("Title of steps") < page.index("8 × Other")


def test_console_table() -> None:
    """The console shows the same cells, under the model's name."""
    console = Console(width=140, record=True, file=io.StringIO())
    table.show(section(), console)
    shown = console.export_text()
    assert re.search(r"^ *MLP *$", shown, re.MULTILINE)
    assert re.search(r"slow peer +150 s +1.5 ms +75 +≥ 50 × ✓", shown)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (12.34, "s", "12.3 s"),
        (0.0123, "s", "12.3 ms"),
        (1.5e-5, "s", "15 µs"),
        (154.2, "s", "154 s"),
        (3 * 2**20, "B", "3 MiB"),
        (1.034, "", "1.03"),
        (None, "s", ""),
    ],
)
def test_quantities(value: float | None, unit: str, text: str) -> None:
    """Three digits and a unit that fits."""
    assert table.quantity(value, unit) == text


def test_merging_keeps_the_others(tmp_path: Path) -> None:
    """A section measured again takes its own place; the others stay, each with its date."""
    results.merge(tmp_path, section("steps"))
    results.merge(tmp_path, section("growth"))
    merged = results.merge(tmp_path, section("steps", date="2002-02-02", rows=()))
    assert merged == results.load(tmp_path)
    assert merged["growth"] == section("growth")
    assert merged["steps"].date == "2002-02-02"
    assert not merged["steps"].rows


def test_drawings(tmp_path: Path) -> None:
    """Each section has an SVG with its labels, the same for the same results, and undated."""
    drawn = {
        "growth": tuple(SLOPE),
        "networks": tuple(networks.of_case(networks.TINY[1], ANSWER)),
        "depth": (*DEEP, *depth.line(DEEP)),
    }
    sections = {"coordinates": section()}
    sections |= {name: section(name, rows=rows, plotted="ratio") for name, rows in drawn.items()}
    plots.draw(tmp_path, sections)
    first = {name: (tmp_path / f"{name}.svg").read_text(encoding="utf-8") for name in sections}
    plots.draw(tmp_path, sections)
    for name, text in first.items():
        assert (tmp_path / f"{name}.svg").read_text(encoding="utf-8") == text
        words = " ".join(ET.fromstring(text).itertext())
        assert f"Title of {name}" in words
        assert "date" not in text
    assert "slow peer" in first["coordinates"]
    assert "slope 1" in first["growth"]
    assert networks.WRONG in first["networks"]
    assert "(goal ≤ 135 ×)" in first["networks"]
    assert "20 ms + 3 ms a layer" in first["depth"]


def test_nothing_measured_can_be_drawn(tmp_path: Path) -> None:
    """A section whose rows all failed still gives a table and a drawing."""
    failed = (Row("MLP", "tfcheck", note="failed"),)
    sections = {name: section(name, rows=failed) for name in ("coordinates", *plots.DRAWN)}
    plots.draw(tmp_path, sections)
    table.write(tmp_path, sections)
    assert len(list(tmp_path.iterdir())) == len(sections) + 1


def test_exponents() -> None:
    """Seconds in proportion to the size have the exponent one; sizes without a number are out."""
    rows = [*SLOPE, Row("batch, directions", "2000", size=2000.0, note="stopped")]
    fitted = {row.what: row.value for row in growth.exponents(rows)}
    assert fitted == pytest.approx({"exponent, all sizes": 1.0, "exponent, larger half": 1.0})


def test_a_line_of_depth() -> None:
    """Seconds on a straight line have no deviation from it; a bend shows, at whatever depth."""
    fitted = {row.what: row.value for row in depth.line(DEEP)}
    assert fitted[depth.EACH] == pytest.approx(0.003)
    assert fitted[depth.LEAST] == pytest.approx(0.02)
    assert fitted[depth.DEVIATION] == pytest.approx(0.0, abs=1e-9)
    bent = [row.replaced(value=row.size**2) for row in DEEP if row.size]
    off = {row.what: row.value for row in depth.line(bent)}[depth.DEVIATION]
    assert off is not None
    assert off > 20
    assert not list(depth.line([*DEEP[:2], DEEP[2].replaced(value=None)]))


def test_rows_of_a_network() -> None:
    """Ratios are over what the rows name; only the wrong layer is the right culprit."""
    rows = {row.what: row for row in networks.of_case(networks.TINY[1], ANSWER)}
    ratios = {what: row.ratio for what, row in rows.items() if row.ratio is not None}
    assert ratios == pytest.approx(
        {networks.TRACING: 0.25, networks.IN_PASSES: 40, networks.IN_STEPS: 20, networks.MEMORY: 2}
    )
    assert rows[networks.COMPARED].value == pytest.approx(0.95)
    assert rows[networks.SAID].note == f"verdict fail, culprit model/{WRONG_LAYER}"
    assert all(row.met for row in rows.values() if row.goal)
    assert networks.judged_rightly(networks.TINY[0], {"verdict": "pass", "culprits": []})
    others: list[processes.Answer] = [
        {"culprits": []},
        {"culprits": ["model/dense"]},
        {"verdict": "pass"},
    ]
    for other in others:
        assert not networks.judged_rightly(networks.TINY[1], ANSWER | other)
    assert not networks.judged_rightly(networks.TINY[0], ANSWER)


def test_a_network_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not dropped: what was measured by then is shown, and beside the rest is why not."""
    begun = {name: ANSWER[name] for name in ("parameters", "first_step", "step_bytes", "step")}

    def run(arguments: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        output = f"noise\n{processes.MARK}{json.dumps(begun)}\n".encode()
        raise subprocess.TimeoutExpired(arguments, options["timeout"], output)

    monkeypatch.setattr(subprocess, "run", run)
    rows = list(networks.rows(QUICK))
    assert len(rows) == 10 * len(networks.TINY)
    for row in rows:
        assert (row.value is None) == (row.note == "stopped after 120 s"), row
        assert row.met is None
    assert sum(row.value is not None for row in rows) == 2 * len(networks.TINY)


def test_a_missing_peer_has_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyTorch and JAX their rows say how to get them, and tfcheck's are measured."""

    def run(arguments: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        assert arguments[3] == "checkers:checks"
        answer = json.dumps({"first": 0.5, "repeated": 0.04, "runs": 3, "note": "verdict pass"})
        return subprocess.CompletedProcess(arguments, 0, f"noise\n{processes.MARK}{answer}\n", "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(processes, "installed", lambda _package: False)
    rows = list(directions.rows(QUICK))
    assert [row.value for row in rows] == [0.5, 0.04, None, None, None, None]
    assert rows[1].met
    assert all(row.note == 'not installed: pip install -e ".[bench]"' for row in rows[2:])


def test_a_measurement_that_fails_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    """An error or a timeout is a note without the paths in a traceback, which go to the eye."""
    assert ask("cases:nothing", timeout=60) == {"note": "failed: the process ended with 1"}
    assert "has no attribute 'nothing'" in capfd.readouterr().err
    assert ask("cases:mlp", timeout=0.001) == {"note": "stopped after 0 s"}


def test_every_task_exists() -> None:
    """What processes are asked for by name is a function of that module."""
    tasks = set()
    for file in BENCH.glob("*.py"):
        tasks |= set(re.findall(r'"([a-z_]+):([a-z_]+)"', file.read_text(encoding="utf-8")))
    tasks |= {("memory", name) for name in ("full_check", "default_check", "training_step")}
    assert len(tasks) > 8
    for module, function in tasks - {("module", "function")}:
        tree = ast.parse((BENCH / f"{module}.py").read_text(encoding="utf-8"))
        names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert function in names, f"{module}:{function}"


def test_the_parent_is_light() -> None:
    """The process that starts the others loads none of what they measure."""
    code = (
        "import sys, tfcheck.scripts.bench.__main__, tfcheck.scripts.bench.peers_torch, "
        "tfcheck.scripts.bench.peers_jax\n"
        "print([n for n in ('tensorflow', 'torch', 'jax', 'matplotlib') if n in sys.modules])"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert finished.stdout == "[]\n"


@pytest.mark.parametrize("case", [TINY_MLP, TINY_CNN], ids=lambda case: case.model)
def test_the_models_agree(case: Case) -> None:
    """Keras, PyTorch and JAX have the same loss, and gradients of the same length."""
    keras = ask("peers_tensorflow:loss_and_slope", timeout=120, **case.arguments)
    assert keras["slope"] > 0.1
    if installed("torch"):
        torch = ask("peers_torch:loss_and_slope", timeout=120, **case.arguments)
        assert torch == pytest.approx(keras, rel=1e-12)
    if installed("jax") and case.model == "mlp":
        jax = ask("peers_jax:loss_and_slope", timeout=120, sizes=case.sizes)
        assert jax == pytest.approx(keras, rel=1e-12)


def test_a_wrong_network_is_the_right_one_but_for_a_gradient() -> None:
    """The loss is the same, and what comes before the wrong layer gets 5 % too much."""
    import tensorflow as tf

    from tfcheck.scripts.bench.models import build, loss_of

    def loss_and_slope(case: Case) -> tuple[float, Any]:
        built = build(**case.arguments)
        with tf.GradientTape() as tape:
            loss = loss_of(built)()
        return float(loss), tape.gradient(loss, built.model.trainable_variables[0])

    pairs = [
        (residual(3), residual(3, wrong=True)),
        networks.TINY,
        (
            application("MobileNet", 32),
            application("MobileNet", 32, wrong_after="conv_pw_6_relu"),
        ),
    ]
    for right, wrong in pairs:
        assert (right.wrong, wrong.wrong) == (False, True)
        loss, slope = loss_and_slope(right)
        loss_of_wrong, slope_of_wrong = loss_and_slope(wrong)
        assert loss_of_wrong == pytest.approx(loss, rel=1e-5)
        off = tf.norm(tf.convert_to_tensor(slope_of_wrong) - 1.05 * tf.convert_to_tensor(slope))
        assert float(off) < 1e-3 * float(tf.norm(tf.convert_to_tensor(slope)))


def test_a_wrong_network_beside_its_training() -> None:
    """A process measures all there is to know, and its check names the wrong layer."""
    case = networks.TINY[1]
    answer = ask("beside_training:measure", timeout=120, **case.arguments, repeats=1, seconds=9.0)
    assert answer.keys() == ANSWER.keys()
    assert answer["runs"] == 1
    assert networks.judged_rightly(case, answer), answer
    assert answer["compared"] >= 0.9 * answer["variables"]
    assert answer["step"] < answer["first_step"]
    assert answer["tracing"] < answer["first_check"]


def test_depth_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of some layers has its seconds, what they are in forward passes, and passes."""

    def here(task: str, *, timeout: float, **arguments: Any) -> processes.Answer:
        """As in a process of its own, but for the seconds that one takes to start."""
        assert task == "beside_training:measure"
        answer: processes.Answer = {}
        for part in beside_training.measure(**arguments):
            answer |= part
        return answer

    monkeypatch.setattr(depth, "ask", here)
    row = depth.measure(3, QUICK, wrong=False)
    assert row.met, row.note
    assert row.value
    assert row.ratio
    assert row.ratio > 1
    assert row.size == 3
    assert "10 of 10 variables compared" in row.note


def test_the_readme_tells_what_was_measured() -> None:
    """Each network has its line, a stopped one too; what has no results has none."""
    stopped = networks.of_case(networks.TINY[0], {"parameters": 9, "note": "stopped after 900 s"})
    rows = (*networks.of_case(networks.TINY[1], ANSWER), *stopped)
    sections = {
        "networks": section("networks", rows=rows),
        "depth": section("depth", load=3.0, rows=(*DEEP, *depth.line(DEEP))),
    }
    text = account.filled(f"Before.\n{account.BEGIN}\nold\n{account.END}\nAfter.\n", sections)
    assert text.startswith("Before.\n")
    assert text.endswith("\nAfter.\n")
    assert "old" not in text
    assert (
        f"| {networks.TINY[1].label} | 400 ms | 40 | 20 | 0.25× | 2.00× | 19 of 20 | "
        f"verdict fail, culprit model/{WRONG_LAYER} |"
    ) in text
    assert f"| {networks.TINY[0].label} | stopped after 900 s |" in text
    assert "of 2 to 200 layers, all layers right: 20 ms and 3 ms for each layer, within 0 %" in text
    assert account.filled(text, sections) == text
    assert "MLP" not in text
    assert "on 2 × Example, TensorFlow 2.18.0, in 0 minutes" in text
    assert "The machine had other work before: Title of depth." in text


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="peaks are told by Linux")
def test_peaks_are_seen() -> None:
    """Memory that was taken and given back within some work is counted."""
    size = 64 * 2**20

    def work() -> None:
        np.ones(size, dtype="uint8")

    assert 0.9 * size < memory.peak_of(work) < 1.5 * size


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes tables and drawings, and keeps what was measured before."""

    def rows(effort: Effort) -> Iterator[Row]:
        assert effort.quick
        yield Row("MLP", "a step", 0.001, ratio=1.002)

    subject = Subject("steps", "Steps", "By hand.", "× without", "ratio", rows)
    monkeypatch.setitem(command.SUBJECTS, "steps", subject)
    results.merge(tmp_path, section())
    arguments = ["--quick", "--only", "steps", "--results", str(tmp_path)]
    outcome = CliRunner().invoke(command.main, arguments, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    assert "1.002" in outcome.output
    page = (tmp_path / table.FILE).read_text(encoding="utf-8")
    assert page.index("Title of coordinates") < page.index("## Steps")
    assert "`python -m tfcheck.scripts.bench --quick --only steps`" in page
    assert {path.name for path in tmp_path.iterdir()} == {
        "results.json",
        "results.md",
        "coordinates.svg",
        "steps.svg",
    }
    assert str(tmp_path) not in page
