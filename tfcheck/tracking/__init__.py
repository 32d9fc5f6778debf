"""Reports into MLflow: which run, what is logged, and what happens while the server is away.

Importing this package loads no MLflow: that happens when tracking starts.
"""

from tfcheck.tracking.mlflow_tracking import MlflowTracking, log_report, resend
from tfcheck.tracking.run_log import TrackingError

__all__ = ["MlflowTracking", "TrackingError", "log_report", "resend"]
