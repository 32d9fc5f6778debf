"""A regression between two commits for the example store: a layer's file, before and after.

The file is committed twice to a repository that is made for it, so that both commits are real.
Author and date are fixed, and so the hashes are the same each time.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

FILE = "scaled_norm.py"

BEFORE = '''\
"""Activations divided by their root mean square."""

import keras
import tensorflow as tf


@tf.custom_gradient
def scaled(x):
    """x / rms(x), along the last axis."""
    inverse = tf.math.rsqrt(tf.reduce_mean(x * x, axis=-1, keepdims=True) + 1e-6)
    y = x * inverse

    def gradient(upstream):
        along = tf.reduce_mean(upstream * y, axis=-1, keepdims=True)
        return inverse * (upstream - along * y)

    return y, gradient


class ScaledNorm(keras.layers.Layer):
    """Normalisation without means and weights."""

    def call(self, inputs):
        return scaled(inputs)
'''

SAVED = """\
        along = tf.reduce_mean(upstream * y, axis=-1, keepdims=True)
        return inverse * (upstream - along * y)
"""
FASTER = """\
        return inverse * upstream
"""
AFTER = BEFORE.replace(SAVED, FASTER)

_STEPS = (
    ("Divide activations by their root mean square", BEFORE, "2026-03-02T10:00:00+00:00"),
    ("Save a reduction in the backward pass", AFTER, "2026-03-03T10:00:00+00:00"),
)


@dataclass(frozen=True, slots=True)
class Commit:
    """One state of the file.

    Attributes:
        hash: the commit's.
        message: what it says of itself.
        file: the file as it is in that commit.
        module: the file, imported.
    """

    hash: str
    message: str
    file: Path
    module: ModuleType


def commits(folder: Path) -> Iterator[Commit]:
    """Commit the file as it was before and after, and give each state while it is there.

    Args:
        folder: an empty folder to make the repository in.
    """
    _git(folder, "init", "--quiet")
    file = folder / FILE
    for message, text, date in _STEPS:
        file.write_text(text, encoding="utf-8")
        _git(folder, "add", FILE)
        _git(folder, "commit", "--quiet", "--message", message, date=date)
        yield Commit(_git(folder, "rev-parse", "HEAD").strip(), message, file, _imported(file))


def _git(folder: Path, *arguments: str, date: str = "") -> str:
    """Run git as nobody in particular, and without anybody's settings."""
    nobody = {"NAME": "tfcheck", "EMAIL": "tfcheck@example.org", "DATE": date}
    roles = {f"GIT_{role}_{k}": v for role in ("AUTHOR", "COMMITTER") for k, v in nobody.items()}
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    finished = subprocess.run(
        ["git", "-C", str(folder), *arguments],
        env={**os.environ, **settings, **roles},
        capture_output=True,
        text=True,
        check=True,
    )
    return finished.stdout


def _imported(file: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location(file.stem, file)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
