"""Reports into MLflow: which run, what is logged, and what happens while the server is away.

The training writes to a file and goes on; a process of its own sends (`worker.py`, `delivery.py`).
Importing this package loads no MLflow, nor does tracking a training load it into its process.

In: `GradientReport`s. Out: metrics, tags, pictures and files of a run. No TensorFlow.

May import: `rendering`, `report`, `judge`; `gradient_report`, `settings`, `errors`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfcheck.tracking.mlflow_tracking import MlflowTracking
from tfcheck.tracking.protocol import Tracking

if TYPE_CHECKING:
    from tfcheck.tracking.sending import TrackingError, log_report, resend

__all__ = ["MlflowTracking", "Tracking", "TrackingError", "log_report", "resend"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load what sends when it is first used: training needs none of it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from tfcheck.tracking import sending

        return getattr(sending, name)
