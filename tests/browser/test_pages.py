from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from chromium import CHROMIUM, DARK, Page, measured, visit
from mlflow import MlflowClient
from repository import ROOT

from tfcheck.dashboard.serve import free_port
from tfcheck.dashboard.snapshot import snapshot
from tfcheck.dashboard.store import find_store
from tfcheck.tracking import views

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed.")

EXAMPLE = ROOT / "mlruns_example"
EXPERIMENT = "digit readers"
RUN = "swish, wrong"
DESK, PHONE = 1440, 390

# What MLflow's own pages say wherever they are opened.
HARMLESS = re.compile(r"^AG Grid: since|ResizeObserver loop")


@pytest.fixture(scope="module")
def ids() -> Mapping[str, str]:
    """The id of each experiment and run of the example store, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        with snapshot(find_store(EXAMPLE)) as uri:
            client = MlflowClient(uri)
            experiments = {e.name: e.experiment_id for e in client.search_experiments()}
            runs = client.search_runs(list(experiments.values()))
            return {**experiments, **{run.info.run_name: run.info.run_id for run in runs}}


@pytest.fixture(scope="module")
def landing() -> Iterator[str]:
    """The address that `tfcheck ui` opens, while it serves the example store."""
    command = [sys.executable, "-m", "tfcheck", "ui", str(EXAMPLE), "--no-browser"]
    server = subprocess.Popen(
        [*command, "--port", str(free_port())], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        addresses = (line.strip() for line in server.stdout if "http://" in line)
        yield next(addresses)
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.fixture(scope="module")
def server(landing: str) -> str:
    """The server's address."""
    return landing.partition("/#")[0]


@pytest.fixture(scope="module")
def report_page(ids: Mapping[str, str]) -> str:
    """The report page of the run with a wrong activation."""
    run = EXAMPLE / ids[EXPERIMENT] / ids[RUN]
    return (run / "artifacts" / "gradcheck" / "report.html").read_text(encoding="utf-8")


def complaints(page: Page) -> list[str]:
    """What the console says that it does not say of every page of MLflow."""
    return [text for text in page.console if not HARMLESS.search(text)]


def words(page: Page) -> str:
    """What a page says, without its styles and scripts."""
    text = re.sub(r"<(style|script)\b.*?</\1>", " ", page.dom, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text))


def lightness(colour: str) -> float:
    """From 0, black, to 1, white."""
    return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 / 255


def test_an_error_is_seen(tmp_path: Path) -> None:
    """The tests below can fail: what a script throws and what cannot be loaded is heard."""
    page = tmp_path / "page.html"
    page.write_text('<img src="gone.png"><script>nobody.knows()</script>', encoding="utf-8")
    said = complaints(visit(page.as_uri()))
    assert any("nobody is not defined" in text for text in said)
    page.write_text("<p>fine</p>", encoding="utf-8")
    assert complaints(visit(page.as_uri())) == []


def test_the_landing_page_answers(landing: str) -> None:
    """Beside each run's name stand its verdict, its culprit and its first failure."""
    page = visit(landing)
    said = words(page)
    assert complaints(page) == []
    for word in (RUN, "healthy", "gradcheck.verdict", "gradcheck.culprits", "scaled_norm"):
        assert word in said, word
    assert "epoch 2 (step 58)" in said


def test_charts_begin_with_failing_layers(server: str, ids: Mapping[str, str]) -> None:
    """Verdicts of failing layers are drawn first, as lines of runs."""
    page = visit(f"{server}/{views.dashboard_link(ids[EXPERIMENT], mode='CHART')}")
    assert complaints(page) == []
    assert "Failing layers" in words(page)
    assert page.dom.count("js-plotly-plot") >= 3
    assert 'class="trace scatter' in page.dom


def test_the_matrix_names_culprits(server: str, ids: Mapping[str, str]) -> None:
    """The table of layers × runs says which layer is the culprit, and where it is written."""
    page = visit(f"{server}/{views.dashboard_link(ids[EXPERIMENT], mode='ARTIFACT')}")
    assert complaints(page) == []
    assert "culprit from 0 at scaled_norm.py" in words(page)


def test_the_heatmap_is_shown(server: str, ids: Mapping[str, str]) -> None:
    """A run's heatmap is a picture among its artifacts."""
    link = views.run_link(ids[EXPERIMENT], ids[RUN], "gradcheck/heatmap.png")
    page = visit(f"{server}/{link}")
    assert complaints(page) == []
    assert re.search(r'<img[^>]*src="(blob:|data:image/png)', page.dom)


def test_the_report_among_artifacts(server: str, ids: Mapping[str, str]) -> None:
    """MLflow shows the report page within its own."""
    link = views.run_link(ids[EXPERIMENT], ids[RUN], "gradcheck/report.html")
    page = visit(f"{server}/{link}")
    assert complaints(page) == []
    assert "<iframe" in page.dom


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_the_report_page_fits(report_page: str, width: int, tmp_path: Path) -> None:
    """On a desk and on a phone nothing is wider than the page, and all verdicts are in sight."""
    page, seen = measured(report_page, width, tmp_path)
    assert complaints(page) == []
    assert seen["width"] == width
    assert seen["needed"] <= width
    assert len(seen["verdicts"]) >= 5
    assert max(seen["verdicts"]) <= width


def test_the_report_page_by_night(report_page: str, tmp_path: Path) -> None:
    """Dark where the reader wants it dark, light elsewhere, and read in both."""
    _, light = measured(report_page, DESK, tmp_path)
    night, dark = measured(report_page, DESK, tmp_path, DARK)
    assert complaints(night) == []
    assert lightness(light["paper"]) - lightness(light["ink"]) > 0.5
    assert lightness(dark["ink"]) - lightness(dark["paper"]) > 0.5


def test_the_report_page_says_what_is_wrong(report_page: str, tmp_path: Path) -> None:
    """Title, verdict, culprit and its line; and its pictures have words for who does not see."""
    file = tmp_path / "report.html"
    file.write_text(report_page, encoding="utf-8")
    page = visit(file.as_uri())
    said = words(page)
    assert complaints(page) == []
    for word in (RUN, "fail", "swish", "in wrong_swish", "tangents"):
        assert word in said, word
    assert page.dom.count("<svg") <= page.dom.count("<title>")
