"""Finding an MLflow store, and a copy of its records to look at that leaves the store alone.

MLflow writes absolute artifact paths into its records, so a store that was moved, cloned or
mounted shows runs whose artifacts are silently missing. In the copy, every artifact path points
to where the artifacts are now. The artifacts themselves are not copied: they may be large, and
looking at them changes nothing.
"""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

from tfcheck.errors import TfcheckError, rule

_REMEDY = (
    "Give a folder with an MLflow file store such as mlruns_example, a folder with mlflow.db, "
    "a database file or the address of a tracking server"
)
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
# One of them in a meta.yaml. Long values go on in indented lines.
_ARTIFACT_PATH = re.compile(
    r"^(?P<key>artifact_uri|artifact_location|storage_location|source):"
    r"(?P<value>.*(?:\n[ ]+.*)*)",
    re.MULTILINE,
)


class StoreError(TfcheckError, ValueError):
    """There is no MLflow store where one should be."""


@dataclass(frozen=True, slots=True)
class Store:
    """Where MLflow keeps its records.

    Attributes:
        kind: `"files"` (a folder of text files), `"sqlite"` (a database file) or `"server"`.
        path: the folder or the database file; empty for a server.
        uri: the address of a server; empty for the others.
    """

    kind: str
    path: Path = Path()
    uri: str = ""

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return self.uri or str(self.path)

    @property
    def tracking_uri(self) -> str:
        """The store itself, as MLflow is to be given it."""
        if self.kind == "server":
            return self.uri
        if self.kind == "sqlite":
            return f"sqlite:///{self.path.absolute().as_posix()}"
        return self.path.absolute().as_uri()

    @property
    def folder(self) -> Path:
        """The folder from which artifacts are found."""
        return self.path if self.kind == "files" else self.path.parent


def find_store(store: str | Path | None = None, tracking_uri: str | None = None) -> Store:
    """The store that is meant.

    Args:
        store: a folder, a database file, or a URI. Defaults to `tracking_uri`, else what MLflow
            would use in the current folder: mlflow.db, else mlruns.
        tracking_uri: MLflow's setting, normally the environment variable `MLFLOW_TRACKING_URI`.

    Raises:
        StoreError: if there is none.
    """
    if store is None and tracking_uri:
        store = tracking_uri
    if store is not None:
        return _store_at(str(store))
    for name in ("mlflow.db", "mlruns"):
        if (found := _looked_at(Path(name))) is not None:
            return found
    raise StoreError(
        "Without an argument, tfcheck looks for MLFLOW_TRACKING_URI, mlflow.db and mlruns. "
        f"Received: none of them in {str(Path.cwd())!r}. {_REMEDY}."
    )


def _store_at(text: str) -> Store:
    if text.startswith(("http://", "https://")):
        return Store("server", uri=text.rstrip("/"))
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "sqlite":
        path = Path(rest.removeprefix("/"))
    elif text.startswith("file:"):
        path = _local_path(text) or Path()
    elif separator:
        raise StoreError(
            rule("tfcheck opens files, sqlite and http stores", "store", text, _REMEDY)
        )
    else:
        path = Path(text).expanduser()
    if not path.exists():
        raise StoreError(rule("A store must exist", "store", text, _REMEDY))
    found = _looked_at(path)
    if found is None:
        raise StoreError(rule("A store must hold MLflow's records", "store", text, _REMEDY))
    return found


def _looked_at(path: Path) -> Store | None:
    """The store that a path is, or that lies in the folder it names."""
    if path.is_file():
        with path.open("rb") as file:
            is_database = file.read(16) == b"SQLite format 3\0"
        return Store("sqlite", path) if is_database else None
    if not path.is_dir():
        return None
    if any(path.glob("*/meta.yaml")):
        return Store("files", path)
    if (path / "mlflow.db").is_file():
        return _looked_at(path / "mlflow.db")
    inner = path / "mlruns"
    return Store("files", inner) if any(inner.glob("*/meta.yaml")) else None


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
        if "\nrun_id:" in meta.read_text(encoding="utf-8"):
            for folder in _RUN_FOLDERS:
                (meta.parent / folder).mkdir(exist_ok=True)
        rewrite_artifact_paths(meta, partial(_moved_files, original))


def _moved_files(original: Path, value: str) -> str | None:
    """Where the artifacts of a run, model or experiment are, beside its original record."""
    if _local_path(value) is None:
        return None
    artifacts = original / "artifacts"
    return artifacts.as_uri() if artifacts.is_dir() else original.as_uri()


def rewrite_artifact_paths(meta: Path, change: Callable[[str], str | None]) -> None:
    """Change the artifact paths in one of MLflow's meta.yaml files.

    Args:
        meta: the file.
        change: gives the new path for an old one; None leaves it.
    """

    def changed(line: re.Match[str]) -> str:
        value = " ".join(line["value"].split()).strip("'\"")
        new = None if value in ("", "null") else change(value)
        # A JSON string is a YAML string, whatever is in it.
        return line[0] if new is None else f"{line['key']}: {json.dumps(new)}"

    text = meta.read_text(encoding="utf-8")
    meta.write_text(_ARTIFACT_PATH.sub(changed, text), encoding="utf-8")


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
    path = _local_path(value)
    if path is None or (path.is_absolute() and path.exists()):
        return None
    parts = path.parts
    # The end of the path is the same wherever the store is: …/mlruns/1/<run>/artifacts.
    for start in range(len(parts)):
        candidate = folder.joinpath(*parts[start:])
        if parts[start] in _ARTIFACT_FOLDERS and candidate.exists():
            return candidate.as_uri()
    return (folder / path).as_uri()


def _local_path(uri: str) -> Path | None:
    """The path a URI or path names on this machine; None for a remote one."""
    if re.match(r"^[A-Za-z]:[\\/]", uri):
        return Path(uri)
    parsed = urlparse(uri)
    if parsed.scheme == "":
        return Path(uri)
    if parsed.scheme != "file":
        return None
    path = url2pathname(unquote(parsed.path) if "%" not in parsed.path else parsed.path)
    return Path(path)
