"""A package of layers as somebody would write it, one of them wrong, for tests that run pytest."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from repository import ROOT

LAYERS = """
import keras
import tensorflow as tf


@tf.custom_gradient
def forgetful(x):
    gate = tf.sigmoid(x)
    return x * gate, lambda upstream: upstream * gate


class Swish(keras.layers.Layer):
    def call(self, x):
        return x * tf.sigmoid(x)


class Gate(keras.layers.Layer):
    def __init__(self, units, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(units)

    def call(self, x, y):
        return self.dense(x) * tf.sigmoid(self.dense(y))


class _Hidden(keras.layers.Layer):
    pass
"""

WRONG = """

class WrongSwish(keras.layers.Layer):
    def __init__(self, **options):
        super().__init__(**options)
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return forgetful(self.dense(x))
"""


def write_package(folder: Path, *, wrong: bool = False) -> None:
    """Write the package `shop` with its module `layers`.

    Args:
        folder: where to.
        wrong: with a wrong layer. Defaults to False.
    """
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").write_text("", encoding="utf-8")
    code = LAYERS + WRONG * wrong
    (folder / "shop" / "layers.py").write_text(code, encoding="utf-8")


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in a folder as its user would, with the plugin that tfcheck installs."""
    installed = entry_points(group="pytest11", name="tfcheck")
    plugin = [] if installed else ["-p", "tfcheck.testing.pytest_plugin"]
    path = os.pathsep.join((str(ROOT), str(folder)))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugin, *options],
        cwd=folder,
        env={**kept, "PYTHONPATH": path, "COLUMNS": "100", "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
