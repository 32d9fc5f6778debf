"""The whole suite in several processes, by files, where pytest-xdist is there."""

from __future__ import annotations

import os

import pytest

MOST = 4
"""Processes at most: each loads TensorFlow and needs one to two gigabytes."""

IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if IS_WORKER:  # each has a core: more threads would only be in each other's way
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share the whole suite; tests that are chosen by a path stay in the process that is there.

    With `-n 0`, `--pdb` or without pytest-xdist all run in one process, one after another.
    """
    if IS_WORKER or not config.pluginmanager.hasplugin("xdist") or config.option.usepdb:
        return
    chosen = config.args_source is pytest.Config.ArgsSource.ARGS
    if config.option.numprocesses is None and not chosen:
        config.option.numprocesses = min(os.cpu_count() or 1, MOST)
        config.option.dist = "loadfile"
