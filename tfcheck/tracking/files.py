"""The files of a run: tables, page, pictures, and each check's report."""

from __future__ import annotations

import io
import json
import re
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tfcheck.gradient_report import GradientReport
from tfcheck.tracking import over_checkpoints, tables
from tfcheck.tracking.spool import Entry

_THUMBNAIL = (256, 256)


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
    fresh: Sequence[Entry],
    folders: Sequence[str],
) -> None:
    """Make the files: those of all checks anew, and those of the fresh ones.

    Args:
        place: the folder to make them in.
        section: the folder of this callback in the run.
        reports: all checks of the run, at the steps they are logged at; the last are the fresh.
        fresh: the checks whose files are not there yet.
        folders: the folder of each of them.
    """
    from tfcheck.rendering.html import report_page
    from tfcheck.rendering.plots import heatmap_png

    own = place / section
    own.mkdir()
    _write_json(own / "verdicts.json", tables.verdicts_table(reports))
    _write_json(own / "scores.json", tables.scores_table(reports))
    (own / "report.html").write_text(report_page(reports), encoding="utf-8")
    for number, (entry, folder) in enumerate(zip(fresh, folders, strict=True), start=1):
        (own / folder).mkdir()
        entry.report.save(own / folder / "report.json")
        for name, content in entry.files.items():
            (own / folder / name).write_bytes(content)
        until = len(reports) - len(fresh) + number
        picture = heatmap_png(reports[:until])
        _write_image(place, f"{section}/heatmap", picture, reports[until - 1], entry)
        (own / "heatmap.png").write_bytes(picture)


def _write_image(
    place: Path, key: str, picture: bytes, report: GradientReport, entry: Entry
) -> None:
    """Put an image where `MlflowClient.log_image` would, under a name that is always the same.

    That function draws another name each time, so that an image sent again would be there twice,
    and it uploads and tags in three requests more.
    """
    import PIL.Image

    folder = place / "images"
    folder.mkdir(exist_ok=True)
    step = over_checkpoints.step_of(report)
    unique = uuid.uuid5(uuid.NAMESPACE_URL, f"{key} {step} {entry.made_at}")
    name = f"{key.replace('/', '~')}+step+{step}+timestamp+{entry.made_at}+{unique}"
    (folder / f"{name}.png").write_bytes(picture)
    with PIL.Image.open(io.BytesIO(picture)) as image:
        image.thumbnail(_THUMBNAIL)
        image.save(folder / f"{name}+compressed.webp")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, allow_nan=False, ensure_ascii=False), encoding="utf-8")
