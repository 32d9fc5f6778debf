"""Fixtures of tests that log to MLflow: a server that remembers, one store for all, the logger."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_mlflow import FakeMlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient


@pytest.fixture
def fake(own_mlflow_store: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMlflow]:
    """A server that remembers, to which trainings log."""
    server = FakeMlflow()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "seven")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One database for all tests here: making one takes seconds."""
    return f"sqlite:///{(tmp_path_factory.mktemp('store') / 'mlflow.db').as_posix()}"


@pytest.fixture
def experiment(store: str, tmp_path: Path) -> str:
    """The id of a new, empty experiment in the shared store, made the current one."""
    import mlflow

    mlflow.set_tracking_uri(store)
    name = tmp_path.name
    client = mlflow.MlflowClient(store)
    experiment_id = client.create_experiment(name, artifact_location=(tmp_path / "a").as_uri())
    mlflow.set_experiment(name)
    return str(experiment_id)


@pytest.fixture
def client(store: str, experiment: str) -> MlflowClient:
    """A client of the shared store, in whose current experiment the test logs."""
    from mlflow import MlflowClient

    return MlflowClient(store)


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The warnings of tfcheck so far."""
    caplog.set_level(logging.WARNING, logger="tfcheck.tracking")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "tfcheck.tracking"]


@pytest.fixture
def refused_port() -> Iterator[int]:
    """A port of this machine that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening
        yield taken.getsockname()[1]
