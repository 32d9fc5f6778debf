"""Gradient checking for Keras 3 models on TensorFlow.

`check_gradients` compares the gradients a model trains with to finite differences and returns a
`GradientReport`; `check_layer` does so for a single layer. Importing this package loads no
TensorFlow, Keras or MLflow: they load with the first check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfcheck._version import __version__
from tfcheck.errors import GradientCheckFailed, TfcheckError

if TYPE_CHECKING:
    from tfcheck.check import check_gradients, check_layer
    from tfcheck.gradient_report import GradientReport
    from tfcheck.judge.verdict import Thresholds, Verdict
    from tfcheck.report.rows import Coordinate, LayerReport, VariableReport

__all__ = [
    "Coordinate",
    "GradientCheckFailed",
    "GradientReport",
    "LayerReport",
    "TfcheckError",
    "Thresholds",
    "VariableReport",
    "Verdict",
    "__version__",
    "check_gradients",
    "check_layer",
]

# Public names and the modules that load them: pytest and the command line import this package
# where nothing is checked.
_LOADED_ON_USE = {
    "Coordinate": "tfcheck.report.rows",
    "GradientReport": "tfcheck.gradient_report",
    "LayerReport": "tfcheck.report.rows",
    "Thresholds": "tfcheck.judge.verdict",
    "VariableReport": "tfcheck.report.rows",
    "Verdict": "tfcheck.judge.verdict",
    "check_gradients": "tfcheck.check",
    "check_layer": "tfcheck.check",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Hidden from type checkers, which would otherwise accept any misspelt name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name when it is first used."""
        if name not in _LOADED_ON_USE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_LOADED_ON_USE[name]), name)
        globals()[name] = value
        return value
