"""What of a file of waiting checks has arrived, noted beside it by who sends."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Progress:
    """How far sending has come.

    Attributes:
        run_id: the run that is written to; None until it is known.
        own: whether it is one that was made here, and is ended here.
        asked: whether a server was asked to make one, so that it may be there without our knowing.
        tags: MLflow's tags of a run made here.
        tracking_uri: where MLflow was found, without a password.
        numbers: so many checks have their numbers in MLflow.
        files: so many have their files there.
        shift: what is added to the steps of this training, to go on after an earlier one in the
            run; None until it is known.
        errors: so many checks of earlier trainings in the run could not be made.
        resumed: whether there were checks of an earlier training in the run.
        folders: the folder of each check's report.
        shown: the step that the experiment's views show; None before they are there.
        ended: whether the run has been ended, or is not ours to end.
        seen: so many lines of the file were there when it was last tried to send all of it.
        doing: what is being sent, as a clause; `""` in between.
        trouble: what went wrong last, as a clause with MLflow as its subject; `""` when nothing.
        done: whether all has arrived.
    """

    run_id: str | None = None
    own: bool = False
    asked: bool = False
    tags: Mapping[str, str] | None = None
    tracking_uri: str = ""
    numbers: int = 0
    files: int = 0
    shift: int | None = None
    errors: int = 0
    resumed: bool = False
    folders: tuple[str, ...] = ()
    shown: int | None = None
    ended: bool = False
    seen: int = 0
    doing: str = ""
    trouble: str = ""
    done: bool = False


def path_of(spool: Path) -> Path:
    """Where the progress of a file is noted."""
    return spool.with_suffix(".sent")


def load(spool: Path) -> Progress:
    """The progress noted; none where nothing is, or where it cannot be read."""
    try:
        content = json.loads(path_of(spool).read_text(encoding="utf-8"))
        return Progress(**{**content, "folders": tuple(content["folders"])})
    except (OSError, ValueError, KeyError, TypeError):
        return Progress()


def save(spool: Path, progress: Progress) -> None:
    """Note the progress: replaced in one move, so that a crash leaves the old one or the new one.

    Where the folder has become unwritable, it is only known to the process that sends.
    """
    path = path_of(spool)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        beside.write_text(json.dumps(dataclasses.asdict(progress)), encoding="utf-8")
        beside.replace(path)


def forget(spool: Path) -> None:
    """Remove the note."""
    path_of(spool).unlink(missing_ok=True)
