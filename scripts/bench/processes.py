"""Every measurement is made in a process of its own, which answers with lines of JSON.

TensorFlow, PyTorch and JAX each start thread pools and keep memory; in one process they would
disturb each other.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

Answer = dict[str, Any]
"""What a measurement gives, by name. `note` says why other names are missing, or what to know."""

MARK = "answer: "
INSTALL = 'pip install -e ".[bench]"'
PEERS = {"peers_torch": "torch", "peers_jax": "jax"}
"""Which package a module of peers needs."""

_SURROUNDINGS = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "Agg"}


class CannotMeasureError(RuntimeError):
    """Something cannot be measured here, for a reason that belongs into the table."""


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def environment() -> dict[str, str]:
    """The environment variables of a measuring process: this one's, and quiet libraries."""
    return {**os.environ, **_SURROUNDINGS}


def ask(task: str, *, timeout: float, **arguments: Any) -> Answer:
    """Call a function in a fresh process.

    Args:
        task: `"module:function"` in this package. It is named, since importing the module would
            load TensorFlow here as well.
        timeout: seconds until the process is stopped.
        arguments: what it is called with; JSON must be able to hold it.

    Returns:
        Its answer; where it did not come to its end, a `note` why, and what it had answered before.
    """
    package = PEERS.get(task.partition(":")[0])
    if package is not None and not installed(package):
        return {"note": f"not installed: {INSTALL}"}
    command = [sys.executable, "-m", f"{__package__}.child", task, json.dumps(arguments)]
    try:
        finished = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env=environment(),
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as stopped:
        # As bytes, even of a process whose output is text.
        output = bytes(stopped.stdout or b"").decode(errors="replace")
        return {**_answered(output), "note": f"stopped after {timeout:.0f} s"}
    answer = _answered(finished.stdout)
    if finished.returncode or not answer:
        # What went wrong is for the eye only: it may name folders of this machine.
        sys.stderr.write(finished.stderr[-3000:])
        return {**answer, "note": f"failed: the process ended with {finished.returncode}"}
    return answer


def _answered(output: str) -> Answer:
    """What a process has answered, all at once or bit by bit."""
    answer: Answer = {}
    for line in output.splitlines():
        if line.startswith(MARK):
            answer |= json.loads(line.removeprefix(MARK))
    return answer
