"""Making an MLflow file store fit to give away: no absolute path, no user and no host in it."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

from tfcheck.dashboard.records import change_artifact_paths, changed_record
from tfcheck.dashboard.store import StoreError

# Tags that name a person, a machine or a commit that the receiver does not have.
_PERSONAL = ("mlflow.user", "mlflow.source.git.*", "mlflow.databricks.*")

_COMMIT = "mlflow.source.git.commit"


def make_relocatable(store: Path, commits: Collection[str] = ()) -> None:
    """Change a file store so that it works from any folder and machine.

    Artifact paths become relative to the folder that holds the store. Through `tfcheck ui` and
    `tfcheck.dashboard.snapshot` they are found wherever the store is; plain MLflow finds them when
    it is started in the folder that holds the store.

    Args:
        store: the folder of the store, under the name it will keep. It is changed in place.
        commits: those that may be named. Defaults to none.

    Raises:
        StoreError: if something in it still names this machine.
    """
    for meta in store.rglob("meta.yaml"):
        where = Path(store.name) / meta.parent.relative_to(store)
        with changed_record(meta) as record:
            change_artifact_paths(record, partial(_relative, where))
            if "user_id" in record:
                record["user_id"] = ""
    for pattern in _PERSONAL:
        for tag in store.rglob(f"tags/{pattern}"):
            if tag.name != _COMMIT or tag.read_text(encoding="utf-8") not in commits:
                tag.unlink()
    for tag in store.rglob("tags/mlflow.source.name"):
        tag.write_text(Path(tag.read_text(encoding="utf-8")).name, encoding="utf-8")
    _remove_what_is_empty(store)
    if traces := sorted(traces_of_this_machine(store)):
        raise StoreError(
            "A store to give away must not name the machine it was made on. "
            f"Received: {traces[:5]!r}. Log names instead of paths."
        )


def traces_of_this_machine(store: Path) -> Iterator[str]:
    """The files of a store that hold this machine's name or the path of one of its folders."""
    folders = {store.absolute(), store.absolute().parent, Path.cwd(), Path.home()}
    folders.add(Path(tempfile.gettempdir()))
    words = {str(folder) for folder in folders if len(folder.parts) > 1} | {socket.gethostname()}
    # A name such as "ml" would be found in every file.
    searched = [word.encode() for word in words if len(word) > 3]
    for file in store.rglob("*"):
        if file.is_file() and any(word in file.read_bytes() for word in searched):
            yield file.relative_to(store).as_posix()


def _relative(where: Path, value: str) -> str:
    """The new path; MLflow ends those of runs and logged models in `artifacts`."""
    is_artifact_folder = value.rstrip("/").endswith("/artifacts")
    return (where / "artifacts" if is_artifact_folder else where).as_posix()


def _remove_what_is_empty(store: Path) -> None:
    """The default experiment when nothing was logged to it, and folders that git would lose."""
    default = store / "0"
    if default.is_dir() and not any(default.glob("*/meta.yaml")):
        shutil.rmtree(default)
    folders = sorted((path for path in store.rglob("*") if path.is_dir()), reverse=True)
    for folder in folders:
        if not any(folder.iterdir()):
            folder.rmdir()
