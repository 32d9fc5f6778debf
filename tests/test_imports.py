from __future__ import annotations

import functools
import re
import subprocess
import sys

import pytest
from repository import ROOT

import tfcheck
from tfcheck import callbacks

HEAVY = ("keras", "matplotlib", "mlflow", "pandas", "psutil", "rich", "sklearn", "tensorflow")


@functools.cache
def heavy_modules_after(code: str) -> list[str]:
    """Run `code` in a fresh Python and return which of the heavy packages it loaded."""
    report = f"\nimport sys; print('loaded:', *[name for name in {HEAVY} if name in sys.modules])"
    finished = subprocess.run(
        [sys.executable, "-c", code + report],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
    )
    assert finished.returncode == 0, finished.stderr
    last = finished.stdout.splitlines()[-1]
    assert last.startswith("loaded:"), finished.stdout
    return last.split()[1:]


def test_import_is_light() -> None:
    """`import tfcheck` loads neither TensorFlow, Keras, MLflow nor a plotting or table library."""
    assert heavy_modules_after("import tfcheck, tfcheck.callbacks, tfcheck.errors") == []


def test_help_is_light() -> None:
    """`tfcheck --help` answers without loading any of them."""
    code = "from tfcheck.scripts.cli import main; main(['--help'], standalone_mode=False)"
    assert heavy_modules_after(code) == []


def test_the_pytest_plugin_is_light() -> None:
    """Pytest loads it in every project: it brings none of them, nor anything of tfcheck's besides.

    What it needs to wait for a check is the package itself, its errors, and four small files.
    """
    code = "import sys, tfcheck.testing.pytest_plugin\n"
    said = "print(*sorted(name for name in sys.modules if name.startswith('tfcheck')))"
    finished = subprocess.run(
        [sys.executable, "-c", code + said], capture_output=True, text=True, check=True, cwd=ROOT
    )
    own = {"assertion", "options", "packages", "pytest_plugin", "running"}
    known = {"tfcheck", "tfcheck._version", "tfcheck.errors", "tfcheck.testing"}
    assert set(finished.stdout.split()) == known | {f"tfcheck.testing.{name}" for name in own}
    assert heavy_modules_after(code) == []
    assert "numpy" not in finished.stdout


def test_weight_is_seen() -> None:
    """The two tests above can fail: using what needs TensorFlow is noticed."""
    loaded = heavy_modules_after("import tfcheck; tfcheck.check_gradients")
    assert {"keras", "tensorflow"} <= set(loaded)


def test_a_check_needs_no_mlflow() -> None:
    """The numerics know no MLflow: having `check_gradients` at hand does not load it."""
    assert "mlflow" not in heavy_modules_after("import tfcheck; tfcheck.check_gradients")


NUMBERS_ALONE = """
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None  # importing them raises
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "tests/measure", "tests/judge"]))
"""


def test_numbers_are_tested_without_tensorflow() -> None:
    """What measures and judges has tests of its own, which need neither TensorFlow nor Keras."""
    finished = subprocess.run(
        [sys.executable, "-c", NUMBERS_ALONE], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert finished.returncode == 0, finished.stdout
    assert re.search(r"[1-9]\d\d passed", finished.stdout), finished.stdout


@pytest.mark.parametrize("name", tfcheck.__all__)
def test_public_names_exist(name: str) -> None:
    """Every name tfcheck promises can be had, and is listed for completion."""
    assert getattr(tfcheck, name) is not None
    assert name in dir(tfcheck)


@pytest.mark.parametrize("name", callbacks.__all__)
def test_public_callbacks_exist(name: str) -> None:
    """Every callback promised can be had, and is listed for completion."""
    assert getattr(callbacks, name) is not None
    assert name in dir(callbacks)


@pytest.mark.parametrize("module", [tfcheck, callbacks])
def test_unknown_names_are_attribute_errors(module: object) -> None:
    """A misspelt name gives Python's usual error, naming module and name."""
    with pytest.raises(AttributeError, match=r"module 'tfcheck.*' has no attribute 'chekc'"):
        module.chekc  # type: ignore[attr-defined]  # noqa: B018


def test_lazy_names_are_resolved_once() -> None:
    """A name loaded on first use is the object of its own module, not a wrapper around it."""
    from tfcheck.check import check_gradients

    assert tfcheck.check_gradients is check_gradients
    assert vars(tfcheck)["check_gradients"] is check_gradients
