"""The files of a run: tables, page, pictures, and each check's report."""

from __future__ import annotations

import io
import json
import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfcheck.gradient_report import GradientReport
from tfcheck.tracking import matrix, over_checkpoints, tables
from tfcheck.tracking.spool import Entry

_DENSITY = 100  # pixels an inch of the picture in a card, which MLflow shows as large as it is


def folder_of(step: int, taken: Collection[str]) -> str:
    """A folder for the report of a check that no other check has: nothing is overwritten.

    Example:
        >>> folder_of(500, {}), folder_of(500, {"step-000500"})
        ('step-000500', 'step-000500-2')
    """
    name, number = f"step-{step:06d}", 1
    while name in taken:
        number += 1
        name = f"step-{step:06d}-{number}"
    return name


def step_in(folder: str) -> int:
    """The step in a folder's name.

    Example:
        >>> step_in("step-000500-2")
        500
    """
    found = re.match(r"step-(\d+)", folder)
    return int(found[1]) if found else 0


def make(
    place: Path,
    section: str,
    reports: Sequence[GradientReport],
    fresh: Mapping[str, Entry],
    run: str = "",
) -> None:
    """Make the files: those of all checks anew, and those of the fresh ones.

    Args:
        place: the folder to make them in.
        section: the folder of this callback in the run.
        reports: all checks of the run, at the steps they are logged at; the last are the fresh.
        fresh: the checks whose files are not there yet, each by its folder.
        run: the run's name. Defaults to `""`, one without a name.
    """
    from tfcheck.rendering.html import report_page

    own = place / section
    own.mkdir()
    _write_json(own / "matrix.json", matrix.matrix_table(reports))
    _write_json(own / "verdicts.json", tables.verdicts_table(reports))
    _write_json(own / "scores.json", tables.scores_table(reports))
    (own / "report.html").write_text(report_page(reports, run), encoding="utf-8")
    for number, (folder, entry) in enumerate(fresh.items(), start=1):
        (own / folder).mkdir()
        entry.report.save(own / folder / "report.json")
        for name, content in entry.files.items():
            (own / folder / name).write_bytes(content)
        until = len(reports) - len(fresh) + number
        picture = _write_heatmap(place, section, reports[:until], entry)
        (own / "heatmap.png").write_bytes(picture)


def _write_heatmap(
    place: Path, section: str, reports: Sequence[GradientReport], entry: Entry
) -> bytes:
    """Put an image where `MlflowClient.log_image` would, under a name that is always the same.

    That function draws another name each time, so that an image sent again would be there twice,
    and it uploads and tags in three requests more. Its card is the picture made so small that
    nothing in it can be read; ours is a picture of its own, and a click opens the whole one.

    Returns:
        The whole picture.
    """
    import PIL.Image

    from tfcheck.rendering.plots import CARD, heatmap_png

    folder = place / "images"
    folder.mkdir(exist_ok=True)
    key, step = f"{section}/heatmap", over_checkpoints.step_of(reports[-1])
    unique = uuid.uuid5(uuid.NAMESPACE_URL, f"{key} {step} {entry.made_at}")
    name = f"{key.replace('/', '~')}+step+{step}+timestamp+{entry.made_at}+{unique}"
    whole = heatmap_png(reports)
    (folder / f"{name}.png").write_bytes(whole)
    with PIL.Image.open(io.BytesIO(heatmap_png(reports, _DENSITY, CARD))) as card:
        card.save(folder / f"{name}+compressed.webp", lossless=True)
    return whole


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, allow_nan=False, ensure_ascii=False), encoding="utf-8")
