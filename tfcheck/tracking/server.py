"""Is the tracking server there, and how long may it keep training waiting.

With MLflow's defaults a single call to a server that is away blocks for 247 seconds and more.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

PROBE_SECONDS = 2.0
UPLOAD_SECONDS = 30.0


def is_local(tracking_uri: str) -> bool:
    """Whether a store is a file or folder of this machine, which cannot be away."""
    scheme, separator, _ = tracking_uri.partition(":")
    return not separator or scheme in ("file", "sqlite") or len(scheme) == 1  # C:\mlruns


def answers(tracking_uri: str, seconds: float) -> bool:
    """Whether an HTTP(S) server answers at all within this time; True for other stores."""
    if not tracking_uri.startswith(("http://", "https://")):
        return True
    import requests

    verify = os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() not in ("1", "true")
    try:
        answer = requests.get(
            f"{tracking_uri.rstrip('/')}/health", timeout=seconds, verify=verify, stream=True
        )
    except requests.RequestException:
        return False
    answer.close()
    # A proxy in front of a stopped server answers with 502 to 504; a login page also answers.
    return answer.status_code < 500


class Upload:
    """A piece of work on a thread of its own, so that waiting for it can end.

    Args:
        work: what to do.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="tfcheck-upload", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the work is not done yet."""
        return self._thread.is_alive()

    def wait(self, seconds: float) -> bool:
        """Wait for the end, but not for longer than this.

        Returns:
            Whether the work is done.

        Raises:
            Exception: what the work raised.
        """
        self._thread.join(seconds)
        if self._thread.is_alive():
            return False
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return True

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001 - carried over to the waiting thread
            self._error = error
