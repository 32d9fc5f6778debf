"""The memory limit: how it is written, what `"auto"` is, and where it is kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from tfcheck import memory
from tfcheck.errors import ArgumentError
from tfcheck.memory import bytes_of, free_memory

MACHINE = 64 * 1024**3


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (1, 1),
        (np.int64(2**33), 2**33),
        ("1B", 1),
        ("1kB", 1000),
        ("500MB", 500_000_000),
        ("2GB", 2 * 10**9),
        ("1 TB", 10**12),
        ("1KiB", 1024),
        ("3MiB", 3 * 1024**2),
        ("1.5GiB", 3 * 2**29),
        ("0.1 GB", 10**8),
        ("2tib", 2**41),
        (" 7gb ", 7 * 10**9),
    ],
)
def test_sizes(limit: int | str, expected: int) -> None:
    """Bytes are bytes; GB counts in thousands and GiB in 1024s; case and spaces do not matter."""
    assert bytes_of(limit) == expected


REFUSED: list[Any] = [
    0,
    -1,
    True,
    2e9,
    float("nan"),
    None,
    "",
    "2",
    "GB",
    "2 G",
    "2PB",
    "2 parsecs",
    "-2GB",
    "0GB",
    "0.1B",
    "nan",
    "nanGB",
    "infGB",
    "1e3MB",
    "1,5GB",
    "AUTO",
]


@pytest.mark.parametrize("limit", REFUSED)
def test_what_is_no_size(limit: Any) -> None:
    """Anything else is refused, with what was received and a size that works."""
    with pytest.raises(ArgumentError) as caught:
        bytes_of(limit)
    said = str(caught.value)
    assert said.startswith('memory_limit must be "auto", a positive whole number of bytes, or')
    assert said.endswith(f'Received: memory_limit={limit!r}. Try "2GB".')


@pytest.mark.parametrize("limit", REFUSED)
def test_checks_refuse_it_before_any_work(limit: Any) -> None:
    """Every public way to a check refuses such a limit, before it looks at the model."""
    from tfcheck import check_gradients, check_layer
    from tfcheck.callbacks import GradientCheck

    for check in (check_gradients, check_layer, GradientCheck):
        with pytest.raises(ArgumentError, match="memory_limit must be"):
            check(None, np.ones((2, 1)), memory_limit=limit)


@pytest.mark.parametrize("limit", ["auto", "1.5GiB", 10**9, np.int32(5_000_000)])
def test_it_is_kept_as_given(limit: Any) -> None:
    """The report says what was asked for, before and after JSON, and so does MLflow."""
    import keras

    from tfcheck import GradientReport, check_layer
    from tfcheck.tracking import schema

    report = check_layer(keras.layers.ReLU(), np.ones((2, 1)), directions=1, memory_limit=limit)
    assert report.settings.memory_limit == limit
    assert GradientReport.from_dict(report.to_dict()).settings == report.settings
    assert schema.params(report.settings)["gradcheck.memory_limit"] == str(limit)


@pytest.mark.parametrize("limit", ["auto", "2GB"])
def test_what_is_free_is_looked_up_once_a_check(
    limit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`"auto"` is a share of what is free when a check begins, whatever the check does then."""
    import keras
    from wrong_sine import wrong_sine

    from tfcheck import check_gradients

    looks = iter(range(100))
    monkeypatch.setattr(memory, "free_memory", lambda: MACHINE + 0 * next(looks))
    layers = [keras.layers.Dense(2), keras.layers.Lambda(wrong_sine), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(loss="mse")
    report = check_gradients(
        model, np.ones((2, 3)), np.ones((2, 1)), method="full", memory_limit=limit
    )
    assert report.culprits
    assert next(looks) == (limit == "auto")


# -- what is free --------------------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with 64 GiB available and no control groups; gives the folder for them."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=MACHINE))
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "OWN_CGROUPS", tmp_path / "own")
    return tmp_path


def write(folder: Path, **files: object) -> None:
    """Write these files, whose names have __ for a dot, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


@pytest.mark.usefixtures("machine")
def test_a_machine_without_control_groups() -> None:
    """Free is what the machine has available, and auto is a quarter of it."""
    assert free_memory() == MACHINE
    assert bytes_of("auto") == MACHINE // 4


def test_a_container(machine: Path) -> None:
    """A container may use what its own limit leaves, with the files it has cached."""
    write(machine, own="0::/")
    write(machine / "cgroup", memory__max=1000, memory__current=700)
    assert free_memory() == 300
    write(machine / "cgroup", memory__stat="anon 5\ninactive_file 150\nfile 200")
    assert free_memory() == 450
    assert bytes_of("auto") == 112


def test_the_tightest_group_counts(machine: Path) -> None:
    """Limits of the groups around the process's own bind it, too."""
    write(machine, own="0::/user/job")
    write(machine / "cgroup/user/job", memory__max="max", memory__current=1)
    write(machine / "cgroup/user", memory__max=5000, memory__current=1000)
    write(machine / "cgroup", memory__max=90000, memory__current=0)
    assert free_memory() == 4000


def test_a_path_of_the_host(machine: Path) -> None:
    """Where a container sees its path on the host, its limit is found at the root."""
    write(machine, own="0::/docker/0123")
    write(machine / "cgroup", memory__max=1000, memory__current=700)
    assert free_memory() == 300


def test_the_first_version_of_control_groups(machine: Path) -> None:
    """Limits of version 1 are read where they are; other controllers are not asked."""
    write(machine, own="9:cpu,cpuacct:/job\n4:memory:/job\n0::/")
    files = {"memory__limit_in_bytes": 2000, "memory__usage_in_bytes": 1500}
    write(machine / "cgroup/memory/job", **files, memory__stat="total_inactive_file 100")
    write(machine / "cgroup/memory", memory__limit_in_bytes=2**63 - 4096, memory__usage_in_bytes=0)
    assert free_memory() == 600


def test_no_limit_and_nonsense(machine: Path) -> None:
    """A group without a limit, or one that cannot be read, leaves all that the machine has."""
    write(machine, own="0::/../..")
    write(machine / "cgroup", memory__max="max", memory__current=700)
    assert free_memory() == MACHINE
    write(machine / "cgroup", memory__max="what", memory__current="")
    assert free_memory() == MACHINE


def test_nothing_is_free(machine: Path) -> None:
    """A group that is over its limit has nothing free, and auto is never nothing."""
    write(machine, own="0::/")
    write(machine / "cgroup", memory__max=1000, memory__current=1200)
    assert free_memory() == 0
    assert bytes_of("auto") == 1


def test_here() -> None:
    """On this machine some memory is free, and not more than there is."""
    assert 0 < free_memory() <= psutil.virtual_memory().total
