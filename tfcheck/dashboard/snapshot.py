"""A copy of a store's records to look at, that leaves the store alone.

MLflow writes absolute artifact paths into its records, so a store that was moved, cloned or
mounted shows runs whose artifacts are silently missing. In the copy, every artifact path points
to where the artifacts are now. The artifacts themselves are not copied: they may be large, and
looking at them changes nothing.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from tfcheck.dashboard.records import change_artifact_paths, changed_record
from tfcheck.dashboard.store import Store, local_path

# Where artifacts may be beside a database: MLflow's two defaults, for clients and for servers.
_ARTIFACT_FOLDERS = ("mlruns", "mlartifacts")
# A run is not found unless it has all of these; git and zip lose the empty ones.
_RUN_FOLDERS = ("artifacts", "metrics", "params", "tags")
# What MLflow has in its records about where artifacts are.
_COLUMNS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
}


@contextmanager
def snapshot(store: Store) -> Iterator[str]:
    """A copy of a store's records, in which every artifact can be read.

    What is written to it is lost at the end, and the store stays as it is, byte for byte.

    Args:
        store: a store of files or a database.

    Yields:
        The copy's tracking URI. A copy of files needs `MLFLOW_ALLOW_FILE_STORE=true`.
    """
    with TemporaryDirectory(prefix="tfcheck-store-", ignore_cleanup_errors=True) as folder:
        if store.kind == "files":
            copy = Path(folder) / "mlruns"
            _copy_files(store.path, copy)
            yield copy.as_uri()
        else:
            copy = Path(folder) / "mlflow.db"
            _copy_database(store.path, copy)
            yield f"sqlite:///{copy.as_posix()}"


def _copy_files(source: Path, copy: Path) -> None:
    source = source.absolute()
    # Symbolic links are followed: a link copied as a link could be written through.
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("artifacts"))
    for meta in copy.rglob("meta.yaml"):
        original = source / meta.parent.relative_to(copy)
        with changed_record(meta) as record:
            if "run_id" in record:
                for folder in _RUN_FOLDERS:
                    (meta.parent / folder).mkdir(exist_ok=True)
            change_artifact_paths(record, partial(_moved_files, original))


def _moved_files(original: Path, value: str) -> str | None:
    """Where the artifacts of a run, model or experiment are, beside its original record."""
    if local_path(value) is None:
        return None
    artifacts = original / "artifacts"
    return artifacts.as_uri() if artifacts.is_dir() else original.as_uri()


def _copy_database(source: Path, copy: Path) -> None:
    if any(source.with_name(f"{source.name}{end}").exists() for end in ("-wal", "-journal")):
        # Reading a database in this state may write beside it; its copy may be written.
        for part in source.parent.glob(f"{source.name}*"):
            shutil.copy2(part, copy.with_name(f"{copy.name}{part.name[len(source.name) :]}"))
    else:
        address = f"{source.absolute().as_uri()}?mode=ro"
        with (
            closing(sqlite3.connect(address, uri=True)) as original,
            closing(sqlite3.connect(copy)) as copied,
        ):
            original.backup(copied)
    with closing(sqlite3.connect(copy)) as database, database:
        for table, columns in _COLUMNS.items():
            present = {row[1] for row in database.execute(f"PRAGMA table_info({table})")}
            for column in present.intersection(columns):
                _move_column(database, table, column, source.absolute().parent)


def _move_column(database: sqlite3.Connection, table: str, column: str, folder: Path) -> None:
    values = [row[0] for row in database.execute(f"SELECT DISTINCT {column} FROM {table}")]
    for value in values:
        moved = _moved_database(value, folder) if value else None
        if moved is not None:
            database.execute(f"UPDATE {table} SET {column} = ? WHERE {column} = ?", (moved, value))


def _moved_database(value: str, folder: Path) -> str | None:
    """Where artifacts are that a database beside them names by a path of long ago."""
    path = local_path(value)
    if path is None or (path.is_absolute() and path.exists()):
        return None
    parts = path.parts
    # The end of the path is the same wherever the store is: …/mlruns/1/<run>/artifacts.
    for start in range(len(parts)):
        candidate = folder.joinpath(*parts[start:])
        if parts[start] in _ARTIFACT_FOLDERS and candidate.exists():
            return candidate.as_uri()
    return (folder / path).as_uri()
