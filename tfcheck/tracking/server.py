"""Is MLflow there? Asked before any of its own calls, which wait for minutes where it is not."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from pathlib import Path
from urllib.parse import unquote

PROBE_SECONDS = 2.0

# How long a request of MLflow's may take, and how often it is repeated: minutes, as it comes.
_LIMITS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}

_SAID = (
    (r"database is locked", "is locked by another process"),
    (r"Connection refused|ConnectionRefused|actively refused", "refused the connection"),
    (r"Name or service not known|getaddrinfo|NameResolution", "has an address that nobody knows"),
    (r"[Tt]imed out|Timeout", "did not answer in time"),
    (r"aborted|Connection reset|RemoteDisconnected", "broke the connection off"),
    (
        r"readonly database|[Pp]ermission ?(denied|Error)|Read-only|unable to open",
        "cannot be written",
    ),
)


def limit_requests() -> None:
    """Bound what MLflow waits for, except where the user has set it, for the whole process."""
    for name, value in _LIMITS.items():
        os.environ.setdefault(name, value)


def trouble(tracking_uri: str) -> str:
    """Why a store cannot be used now, as a clause with it as the subject; `""` where it can.

    Args:
        tracking_uri: the store, with paths that are absolute or relative to the working directory.
    """
    if tracking_uri.startswith(("http://", "https://")):
        return _of_server(tracking_uri)
    path = local_path(tracking_uri)
    if path is None:
        return ""
    if tracking_uri.startswith("sqlite:"):
        return _of_database(path)
    return "" if _is_writable(path) else "cannot be written"


def local_path(tracking_uri: str) -> Path | None:
    """The file or folder of a local store; None for a store elsewhere."""
    scheme, separator, rest = tracking_uri.partition(":")
    if not separator or len(scheme) == 1:  # a path, or C:\\mlruns
        return Path(tracking_uri)
    if scheme == "sqlite" and rest.startswith("///"):
        return Path(unquote(rest[3:].partition("?")[0]))
    return Path(unquote(rest.removeprefix("//"))) if scheme == "file" else None


def without_password(uri: str) -> str:
    """A tracking URI may hold a user name and a password, which belong into no file and message."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{separator}{host.rpartition('@')[2]}{slash}{path}" if separator else uri


def said(error: Exception) -> str:
    """What an error of MLflow's says happened, as a clause with MLflow as its subject."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    status = re.search(r"too many (\d{3}) error|\b([45]\d\d) (?:Server|Client) Error", text)
    status = status or re.search(r"failed with error code (\d{3})", text)
    if status:
        return f"answered {next(filter(None, status.groups()))}"
    for pattern, clause in _SAID:
        if re.search(pattern, text):
            return clause
    return f"said {text[:300]}"


def _of_server(tracking_uri: str) -> str:
    import requests

    verify = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("1", "true")
    try:
        answer = requests.get(
            f"{tracking_uri.rstrip('/')}/health", timeout=PROBE_SECONDS, verify=verify, stream=True
        )
    except requests.Timeout:
        return f"did not answer within {PROBE_SECONDS:g} s"
    except requests.RequestException as error:
        return said(error)
    answer.close()
    # A proxy in front of a stopped server answers with 502 to 504; a login page also answers.
    return f"answered {answer.status_code}" if answer.status_code >= 500 else ""


def _of_database(path: Path) -> str:
    if not _is_writable(path) or not _is_writable(path.parent):
        return "cannot be written"
    if not path.exists():
        return ""
    try:
        # As MLflow's writing will: it needs a lock that a reader does not need.
        with contextlib.closing(sqlite3.connect(path, timeout=PROBE_SECONDS)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        return said(error)
    return ""


def _is_writable(path: Path) -> bool:
    """Whether a path can be written, or made where it is not there yet."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return os.access(path, os.W_OK)
