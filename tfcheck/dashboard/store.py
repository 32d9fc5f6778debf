"""Finding an MLflow store: in a folder, a database file, or at an address."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse
from urllib.request import url2pathname

from tfcheck.errors import TfcheckError, rule

_REMEDY = (
    "Give a folder with an MLflow file store such as mlruns_example, a folder with mlflow.db, "
    "a database file or the address of a tracking server"
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
        path = local_path(text) or Path()
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


def local_path(uri: str) -> Path | None:
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
