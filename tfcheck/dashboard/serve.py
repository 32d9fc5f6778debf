"""MLflow's pages on a store, opened where the gradient checks are.

The server runs on the loopback address, on a copy of the records unless asked otherwise, and
ends with everything it started.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tfcheck.dashboard.snapshot import snapshot
from tfcheck.dashboard.store import Store
from tfcheck.errors import TfcheckError
from tfcheck.tracking import views

# A fixed port where it is free: the browser remembers how MLflow's pages were left by address.
PORT = 5055
START_SECONDS = 90.0
_GRACE_SECONDS = 5.0


class DashboardError(TfcheckError, RuntimeError):
    """MLflow's server did not start."""


@dataclass(frozen=True)
class Dashboard:
    """A running server.

    Attributes:
        url: the page to open.
        process: the server; None when it runs elsewhere.
    """

    url: str
    process: subprocess.Popen[bytes] | None = None

    def wait(self) -> None:
        """Wait until the server ends, which it does by itself only when something is wrong."""
        if self.process is not None:
            self.process.wait()


@contextmanager
def dashboard(store: Store, port: int | None = None, live: bool = False) -> Iterator[Dashboard]:
    """Serve a store; the server ends with the block.

    Args:
        store: the store.
        port: the port to listen on. Defaults to 5055, or any free one when that is taken.
        live: serve the store itself, so that running trainings show and changes are kept.
            Defaults to False: a copy of it.

    Raises:
        DashboardError: if the server does not start.
    """
    if store.kind == "server":
        yield Dashboard(start_page(store.uri))
        return
    with ExitStack() as stack:
        uri = store.tracking_uri if live else stack.enter_context(snapshot(store))
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="tfcheck-ui-")))
        port = port or free_port(PORT)
        log = folder / "server.log"
        command = _command(uri, port, folder, store)
        process = stack.enter_context(_running(command, log, store.folder if live else folder))
        address = f"http://127.0.0.1:{port}"
        _wait_until_up(process, address, log)
        yield Dashboard(start_page(address), process)


def free_port(preferred: int = 0) -> int:
    """A free port of the loopback address: the preferred one if it is free."""
    for port in (preferred, 0):
        with socket.socket() as probe, suppress(OSError):
            if sys.platform != "win32":  # a port that was just closed counts as free
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise DashboardError("A port of 127.0.0.1 must be free. Received: none. Close a server.")


def start_page(address: str) -> str:
    """The page to open: the experiment with the latest gradient check, in our saved view.

    Args:
        address: address of a server. One that is away, or asks for a password, gets its main page.
    """
    import requests

    try:
        experiments = _ask(address, "experiments/search", max_results=1000)["experiments"]
        ids = [experiment["experiment_id"] for experiment in experiments]
        runs = _ask(
            address,
            "runs/search",
            experiment_ids=ids,
            filter="tags.`gradcheck.schema` != ''",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        ).get("runs", [])
        if not runs:
            return f"{address}/#/experiments?workflowType=machine_learning"
        chosen = runs[0]["info"]["experiment_id"]
        tags = next(e.get("tags", []) for e in experiments if e["experiment_id"] == chosen)
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return f"{address}/"
    if views.has_view({tag["key"] for tag in tags}):
        return f"{address}/{views.dashboard_link(chosen)}"
    return f"{address}/{views.runs_link(chosen)}"


def _ask(address: str, what: str, **question: Any) -> dict[str, Any]:
    import requests

    answer = requests.post(f"{address}/api/2.0/mlflow/{what}", json=question, timeout=20)
    answer.raise_for_status()
    return dict(answer.json())


def _command(uri: str, port: int, folder: Path, store: Store) -> list[str]:
    # Artifacts that clients sent through a server are in a folder that only the server knows.
    beside = store.folder / "mlartifacts"
    destination = beside if beside.is_dir() else folder / "mlartifacts"
    return [
        *(sys.executable, "-m", "mlflow", "server"),
        *("--backend-store-uri", uri),
        *("--artifacts-destination", str(destination.absolute())),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--workers", "1"),  # starts in a third of the time
    ]


def _environment(before: Mapping[str, str]) -> dict[str, str]:
    """The server's environment: without the settings of a client, which would confuse it."""
    ours = {
        "MLFLOW_ALLOW_FILE_STORE": "true",
        # Jobs are for GenAI pages; they start slowly and outlive the server.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    foreign = {"MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI", "MLFLOW_RUN_ID"}
    return {**{k: v for k, v in before.items() if k not in foreign}, **ours}


@contextmanager
def _running(command: list[str], log: Path, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, which ends with the block, children included."""
    own_group: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=_environment(os.environ),
            cwd=folder,
            **own_group,
        )
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        process.terminate()
    else:
        # The group's id is the process's, and stays valid while any child of it lives.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if sys.platform != "win32":
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _wait_until_up(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    import requests

    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(requests.RequestException):
            if requests.get(f"{address}/health", timeout=2).ok:
                return
        time.sleep(0.2)
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-8:]
    state = "it is still starting" if process.poll() is None else f"exit code {process.poll()}"
    raise DashboardError(
        f"MLflow's server must answer within {START_SECONDS:g} s. Received: {state}, saying: "
        f"{' / '.join(said) or 'nothing'}. "
        "If it asks for a database upgrade, run `mlflow db upgrade` on a copy."
    )
