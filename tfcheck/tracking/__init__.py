"""Reports into MLflow: which run, what is logged, and what happens while the server is away.

The training writes to a file and goes on; a process of its own sends (`worker.py`, `delivery.py`).
Importing this package loads no MLflow, nor does tracking a training load it into its process.

And back: what runs say (`past.py`), and whether a model may pass (`gating.py`).

In: `GradientReport`s. Out: metrics, tags, pictures and files of a run; runs as records. No
TensorFlow.

May import: `rendering`, `runs`, `report`, `judge`; `gradient_report`, `settings`, `errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfcheck.tracking.mlflow_tracking import MlflowTracking
from tfcheck.tracking.protocol import Tracking

if TYPE_CHECKING:
    from tfcheck.runs.gate import Gate
    from tfcheck.tracking.gating import gate
    from tfcheck.tracking.past import History, compare, history
    from tfcheck.tracking.sending import TrackingError, log_report, resend

__all__ = [
    "Gate",
    "History",
    "MlflowTracking",
    "Tracking",
    "TrackingError",
    "compare",
    "gate",
    "history",
    "log_report",
    "resend",
]

# What is used outside of training, and the module that has it.
_LOADED_ON_USE = {
    "Gate": "tfcheck.runs.gate",
    "History": "tfcheck.tracking.past",
    "TrackingError": "tfcheck.tracking.sending",
    "compare": "tfcheck.tracking.past",
    "gate": "tfcheck.tracking.gating",
    "history": "tfcheck.tracking.past",
    "log_report": "tfcheck.tracking.sending",
    "resend": "tfcheck.tracking.sending",
}

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load what sends and what reads when it is first used: training needs none of it."""
        if name not in _LOADED_ON_USE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_LOADED_ON_USE[name]), name)
