"""Make docs/pictures: what a browser shows of the example store.

    python -m tfcheck.scripts.screenshots

Needs Chromium. Nothing is retouched, but MLflow's assistant, which opens beside its pages on a
browser's first visit, is cut off.
"""

from __future__ import annotations

import io
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import PIL.Image

from tfcheck.dashboard.serve import dashboard
from tfcheck.dashboard.store import find_store

BESIDE_ASSISTANT = 1352
"""So wide are MLflow's pages in a window of 1820 pixels."""

# As where there is a mouse: on a screen to be touched, charts always show their tools.
_MOUSE = {
    "primaryHoverType": 2,
    "availableHoverTypes": 2,
    "primaryPointerType": 4,
    "availablePointerTypes": 4,
}
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    f"--blink-settings={','.join(f'{name}={value}' for name, value in _MOUSE.items())}",
    "--virtual-time-budget=90000",
)
_SECONDS = 180


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture of a page.

    Attributes:
        name: of its file, without an ending.
        address: the page.
        window: width and height of the window.
        seen: width and height of what is kept, from the upper left corner.
    """

    name: str
    address: str
    window: tuple[int, int]
    seen: tuple[int, int]

    def take(self, chromium: str) -> PIL.Image.Image:
        """Open the page in a browser of its own, and take its picture.

        Args:
            chromium: the browser's program.
        """
        with TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
            file = Path(folder) / "page.png"
            size = ",".join(map(str, self.window))
            subprocess.run(
                [
                    *(chromium, *_OPTIONS, f"--user-data-dir={folder}", f"--window-size={size}"),
                    *(f"--screenshot={file}", self.address),
                ],
                check=True,
                capture_output=True,
                timeout=_SECONDS,
            )
            picture = PIL.Image.open(io.BytesIO(file.read_bytes())).convert("RGB")
        return picture.crop((0, 0, *self.seen))


def shots(page: str, report: Path) -> tuple[Shot, ...]:
    """The pictures to take.

    Args:
        page: the page that `tfcheck ui` opens.
        report: the page of one run's checks.
    """
    mlflow = (1820, 900)
    charts = page.replace("compareRunsMode=TABLE", "compareRunsMode=CHART")
    return (
        Shot("landing", page, mlflow, (BESIDE_ASSISTANT, 620)),
        Shot("charts", charts, mlflow, (BESIDE_ASSISTANT, 900)),
        Shot("report", report.absolute().as_uri(), (1120, 1600), (1120, 1375)),
    )


def report_of(store: Path, run: str) -> Path:
    """The report page of a run.

    Args:
        store: the example store.
        run: its name.
    """
    for name in store.glob("*/*/tags/mlflow.runName"):
        if name.read_text(encoding="utf-8") == run:
            return name.parents[1] / "artifacts" / "gradcheck" / "report.html"
    raise click.ClickException(
        f"The store must have the run. Received: run={run!r}, which is not in {str(store)!r}. "
        "Make the store anew: python -m tfcheck.scripts.make_example_runs"
    )


@click.command()
@click.option(
    "--store",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path("mlruns_example"),
    show_default=True,
    help="The example store.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("docs", "pictures"),
    show_default=True,
    help="Where to put the pictures.",
)
def main(store: Path, folder: Path) -> None:
    """Take the pictures of the documentation."""
    chromium = shutil.which("chromium")
    if chromium is None:
        raise click.ClickException("Pictures are taken by Chromium. Install it.")
    report = report_of(store, "swish, wrong")
    folder.mkdir(parents=True, exist_ok=True)
    with dashboard(find_store(store)) as board:
        for shot in shots(board.url, report):
            file = folder / f"{shot.name}.png"
            shot.take(chromium).save(file, optimize=True)
            click.echo(f"Written: {file}")


if __name__ == "__main__":
    main()
