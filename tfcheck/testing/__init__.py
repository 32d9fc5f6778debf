"""Gradient checks as assertions: for pytest, unittest, and whatever hears an `AssertionError`.

Importing this package loads no TensorFlow, and nearly nothing else: pytest loads its plugin in
every project that has tfcheck installed.

In: a model or a layer with its inputs. Out: a report, or an error whose message shows what is
wrong; with pytest, a line of its summary.

May import: `rendering`, `judge`; `check`, `gradient_report`, `settings`, `pyproject`, `errors`.
"""

from __future__ import annotations

from tfcheck.testing.assertion import assert_gradients
from tfcheck.testing.packages import layer_classes

__all__ = ["assert_gradients", "layer_classes"]
