"""What the training process knows of MLflow without importing it and without asking a server.

Importing MLflow takes more than a second, and its calls may take minutes: neither happens on the
thread that trains. Where the user has imported it, what it keeps in memory is looked up.
"""

from __future__ import annotations

import os
import platform
import secrets
import socket
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from tfcheck.tracking.server import without_password
from tfcheck.tracking.spool import RunTarget


def active_run_id() -> str | None:
    """The id of the calling thread's active run; None without one."""
    mlflow = _imported()
    active = mlflow.active_run() if mlflow is not None else None
    return None if active is None else str(active.info.run_id)


def tracking_uri() -> str:
    """Where the training would log to, with a password if there is one; `""` for the default."""
    mlflow = _imported()
    return str(mlflow.get_tracking_uri()) if mlflow else os.environ.get("MLFLOW_TRACKING_URI", "")


def versions() -> dict[str, str]:
    """The versions of Python, TensorFlow and Keras as parameters: what trains, as it is here."""
    found = {"gradcheck.python": platform.python_version()}
    for name in ("tensorflow", "keras"):
        known = getattr(sys.modules.get(name), "__version__", "") or _installed(name)
        found |= {f"gradcheck.{name}": str(known)} if known else {}
    return found


def _installed(name: str) -> str:
    """The version of a package that is installed; `""` where it has another name, or is not."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def target(run_id: str | None, name: str, run_name: str, params: dict[str, str]) -> RunTarget:
    """Where checks of a training that begins now go.

    An explicit run, else the active one, else the job's (`MLFLOW_RUN_ID`), else one of our own.
    Call it on the thread that trains: each thread has its own active run.
    """
    chosen = _chosen_experiment_id()
    return RunTarget(
        training=f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}",
        made_at=time.time_ns() // 1_000_000,
        name=name,
        run_id=run_id or active_run_id() or os.environ.get("MLFLOW_RUN_ID") or None,
        # Not from `random`, as MLflow's own names are: seeding it would name all runs alike, and
        # drawing from it would change what the training draws.
        run_name=f"{run_name}-{secrets.token_hex(3)}",
        tracking_uri=without_password(tracking_uri()),
        experiment_id=chosen or os.environ.get("MLFLOW_EXPERIMENT_ID", ""),
        experiment_name="" if chosen else os.environ.get("MLFLOW_EXPERIMENT_NAME", ""),
        folder=str(Path.cwd()),
        source=sys.argv[0] if sys.argv else "",
        host=socket.gethostname(),
        process=os.getpid(),
        params=params,
    )


def _imported() -> Any:
    """MLflow, if the user has imported it, whole; else None."""
    return sys.modules.get("mlflow") if "mlflow.tracking.fluent" in sys.modules else None


def _chosen_experiment_id() -> str:
    """The experiment that `mlflow.set_experiment` chose, which has no public name."""
    fluent = sys.modules.get("mlflow.tracking.fluent")
    return str(getattr(fluent, "_active_experiment_id", None) or "")
