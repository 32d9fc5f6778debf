"""What every test shares: a quiet TensorFlow, repeatable examples, an MLflow store of its own."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Read when the libraries are first imported, so set before any test file is.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import hypothesis
import pytest

pytest_plugins = ("figures", "mlflow_stores", "processes")  # in tests/shared

# The same examples on every machine, and no failure because a machine is slow.
hypothesis.settings.register_profile("tfcheck", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("tfcheck")


def pytest_collection_finish() -> None:
    """Spare the garbage collector what was imported: it would go through all of it every time."""
    gc.collect()
    gc.freeze()


MLFLOW_VARIABLES = ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID")


@pytest.fixture(autouse=True)
def own_random_numbers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Put the generators of a test file back, so that a test's numbers are those it has alone."""
    numpy = sys.modules.get("numpy")
    kinds = () if numpy is None else (numpy.random.Generator,)
    generators = [value for value in vars(request.module).values() if isinstance(value, kinds)]
    states = [generator.bit_generator.state for generator in generators]
    yield
    for generator, state in zip(generators, states, strict=True):
        generator.bit_generator.state = state


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test print as where nobody sees it: pytest-xdist tells its processes a width."""
    for name in ("COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def own_mlflow_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the test an MLflow store in its own folder, created when it is first used.

    The test also runs in that folder: with a database as its store, MLflow puts artifacts into
    `mlruns` in the working directory.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{(tmp_path / 'mlflow.db').as_posix()}")
    for name in MLFLOW_VARIABLES:
        monkeypatch.setenv(name, "")  # makes monkeypatch put back what was there, even nothing
        monkeypatch.delenv(name)
    yield
    mlflow = sys.modules.get("mlflow")
    if mlflow is not None:
        while mlflow.active_run() is not None:
            # The run is forgotten even where its store cannot be told any more.
            with contextlib.suppress(mlflow.exceptions.MlflowException):
                mlflow.end_run()
        mlflow.set_tracking_uri(None)
        # The chosen experiment has no public way back to "none".
        sys.modules["mlflow.tracking.fluent"]._active_experiment_id = None  # type: ignore[attr-defined]
