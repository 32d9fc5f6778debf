from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np
import pytest
from click.testing import CliRunner, Result

from tfcheck import GradientReport, Verdict, __version__
from tfcheck.scripts import surroundings
from tfcheck.scripts.cli import CRASHED, INTERRUPTED, main

MODELS = '''
import keras
import numpy as np
import tensorflow as tf


@tf.custom_gradient
def scaled(x, factor):
    """The function x, whose backward pass is wrong by a factor."""
    return tf.identity(x), lambda upstream: (upstream * factor, None)


class Identity(keras.layers.Layer):
    def __init__(self, factor, **options):
        super().__init__(**options)
        self.factor = factor

    def call(self, x):
        return scaled(x, tf.constant(self.factor))


def draw(shape):
    return np.random.default_rng().normal(size=shape).astype("float32")


class Noise(keras.layers.Layer):
    def call(self, x):
        def drawn(row):
            noise = tf.numpy_function(draw, [tf.shape(row)], tf.float32)
            noise.set_shape(row.shape)
            return row + noise

        return tf.map_fn(drawn, x)


def model(*layers, inputs=3):
    x = start = keras.Input((inputs,))
    for layer in (keras.layers.Dense(2, name="first"), *layers, keras.layers.Dense(1, name="last")):
        x = layer(x)
    made = keras.Model(start, x, name="small")
    made.compile(loss="mse")
    return made


def right():
    return model(keras.layers.Activation("tanh"))


def wrong():
    return model(Identity(2.0, name="identity"))


def nearly_right():
    return model(Identity(1.0002, name="identity"))


def noisy():
    return model(Noise())


def uncompiled():
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)], name="bare")


def unbuilt():
    made = keras.Sequential([keras.layers.Dense(1)], name="shapeless")
    made.compile(loss="mse")
    return made


def raising():
    raise ArithmeticError("the weights\\nare gone")


def leaving():
    raise SystemExit(0)


def with_batch():
    return right(), None


def of_size(size):
    return model(inputs=size)


def many():
    return model(*[keras.layers.Dense(2) for _ in range(20)])


ready_made = right()
'''

REGISTERED = """
import keras


@keras.saving.register_keras_serializable("test_cli")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


@pytest.fixture(autouse=True)
def own_imports() -> Iterator[None]:
    """Forget what a test imports: the next one may have another module of that name."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name in ("models", "registered") or name.startswith("audited_"):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def files(tmp_path: Path) -> Path:
    """The folder the commands run in, with a file of models and a batch that fits them."""
    (tmp_path / "models.py").write_text(MODELS, encoding="utf-8")
    save_batch("batch.npz", x=numbers(8, 3), y=numbers(8, 1))
    return tmp_path


def numbers(*shape: int) -> np.ndarray:
    """The same numbers for the same shape, always."""
    return np.random.default_rng(sum(shape)).normal(size=shape)


def save_batch(name: str, **arrays: Any) -> None:
    """Write an npz file; `__` in a name stands for a slash."""
    np.savez(name, **{key.replace("__", "/"): array for key, array in arrays.items()})


def run(*arguments: str) -> Result:
    """Run `tfcheck` in this process."""
    return CliRunner().invoke(main, arguments)


def audit(model: str, *options: str, batch: str = "batch.npz") -> Result:
    """Run `tfcheck audit` on a model of this test's folder."""
    return run("audit", model, "--batch", batch, *options)


def assert_refused(result: Result, *said: str) -> None:
    """The command ended with exit code 2, one sentence on standard error and no traceback."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("Error: ")
    for part in said:
        assert part in message
    assert "Traceback" not in result.stderr


# -- exit codes --------------------------------------------------------------------------------


def test_right_model() -> None:
    """Where nothing is wrong the table is printed and the exit code is 0."""
    result = audit("models.py:right")
    assert result.exit_code == 0, result.output
    assert "✓ PASS" in result.stdout
    assert "first/kernel" in result.stdout
    assert result.stderr == ""


def test_wrong_model() -> None:
    """A wrong gradient gives exit code 1, and the table names it and the layer to blame."""
    result = audit("models.py:wrong")
    assert result.exit_code == 1, result.output
    assert "✗ FAIL" in result.stdout
    assert "✗ first/kernel" in result.stdout
    assert "culprit     identity" in result.stdout


def test_suspect_is_no_failure() -> None:
    """A score between the bands is printed as suspect, and the exit code is 0."""
    result = audit("models.py:nearly_right")
    assert result.exit_code == 0, result.output
    assert "! suspect" in result.stdout


def test_the_exit_code_is_the_verdict() -> None:
    """Where MLflow is away, a wrong gradient is still a wrong gradient, and one line says why."""
    result = audit("models.py:wrong", "--quiet", "--tracking-uri", "http://127.0.0.1:9")
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Warning: The report is not logged to MLflow, but the verdict stands.")
    assert "'http://127.0.0.1:9', which refused the connection" in line


def test_undecided_model() -> None:
    """Where nothing fails but nothing could be judged either, the exit code is 3."""
    result = audit("models.py:noisy")
    assert result.exit_code == 3, result.output
    assert "? INCONCLUSIVE" in result.stdout


def test_a_crash_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in tfcheck shows its traceback and never reads as a wrong gradient."""

    def crash(_path: Path, _max_bytes: int) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr("tfcheck.scripts.batch_files.read_batch", crash)
    result = audit("models.py:right")
    assert result.exit_code == CRASHED
    assert "RuntimeError: planted" in result.stderr
    assert "most likely a mistake in tfcheck" in result.stderr


def test_interruption(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends the command without a traceback, with the shell's own code for it."""

    def interrupt(_path: Path, _max_bytes: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tfcheck.scripts.batch_files.read_batch", interrupt)
    result = audit("models.py:right")
    assert (result.exit_code, result.stderr) == (INTERRUPTED, "Stopped.\n")


# -- models ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["models:right", "models.py:right", "models.py:ready_made"])
def test_ways_to_name_a_model(model: str) -> None:
    """A function of a module, one of a file, and a model that is ready are all checked."""
    assert audit(model, "--quiet").exit_code == 0


def test_file_elsewhere(files: Path) -> None:
    """A Python file finds the modules beside it, as when it is run itself."""
    (files / "there").mkdir()
    (files / "models.py").rename(files / "there" / "models.py")
    (files / "there" / "made.py").write_text("from models import right\n", encoding="utf-8")
    assert audit("there/made.py:right", "--quiet").exit_code == 0


def saved(name: str, *layers: keras.layers.Layer, loss: str | None = "mse") -> str:
    """Save a model that fits the batch."""
    x = start = keras.Input((3,))
    for layer in (keras.layers.Dense(1), *layers):
        x = layer(x)
    model = keras.Model(start, x)
    if loss is not None:
        model.compile(loss=loss)
    model.save(name)
    return name


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_saved_model(name: str) -> None:
    """A saved model is checked with its own weights and loss."""
    result = audit(saved(name))
    assert result.exit_code == 0, result.output
    assert "2 variables pass" in result.stdout


def test_uncompiled_model() -> None:
    """A model without a loss is refused, saying how to name one; with `--loss` it is checked."""
    name = saved("model.keras", loss=None)
    assert_refused(audit(name), "must be compiled", "--loss")
    assert audit(name, "--loss", "mse", "--quiet").exit_code == 0
    assert_refused(audit(name, "--loss", "msee"), "must name a Keras loss", "'msee'")
    assert_refused(audit("models.py:uncompiled"), "uncompiled model 'bare'", "--loss")


def test_loss_of_a_compiled_model_stays() -> None:
    """`--loss` beside a model that has a loss is refused, not ignored."""
    assert_refused(audit("models.py:right", "--loss", "mae"), "not compiled", "loss='mae'")


def test_custom_layer(files: Path) -> None:
    """A file with a custom layer needs the module that registers it, and says so."""
    (files / "registered.py").write_text(REGISTERED, encoding="utf-8")
    sys.path.insert(0, str(files))
    from registered import Doubled  # type: ignore[import-not-found]

    name = saved("model.keras", Doubled())
    del keras.saving.get_custom_objects()["test_cli>Doubled"]
    del sys.modules["registered"]
    assert_refused(audit(name), "class 'Doubled'", "--import")
    assert audit(name, "--import", "registered", "--quiet").exit_code == 0


def test_stored_code() -> None:
    """Python code in a file is not run unless asked for with `--unsafe`."""
    name = saved("model.keras", keras.layers.Lambda(lambda x: 2 * x))
    assert_refused(audit(name), "does not run the Python code in it", "--unsafe")
    assert audit(name, "--unsafe", "--quiet").exit_code == 0


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("models", ("package.module:function", "model='models'")),
        ("missing.keras", ("saved model must exist", "'missing.keras'")),
        ("missing.py:right", ("Python file must exist", "'missing.py'")),
        ("missing.module:right", ("must be importable", "'missing.module'")),
        ("models.py:rihgt", ("function='rihgt'", "Check its spelling")),
        ("models.py:keras", ("must be a keras.Model or a function", "Received: module")),
        ("models.py:of_size", ("without arguments", "'size'")),
        ("models.py:with_batch", ("must be a keras.Model", "Received: tuple")),
        ("models.py:raising", ("ArithmeticError: the weights (models.py, line", "--traceback")),
        ("models.py:leaving", ("must run without an error", "SystemExit: 0")),
        ("models.py:unbuilt", ("must be built", "'shapeless'")),
    ],
)
def test_models_that_are_none(files: Path, model: str, said: tuple[str, ...]) -> None:
    """What is no checkable model is refused in one sentence, and no report is written."""
    assert_refused(audit(model, "--json", "report.json"), *said)
    assert not (files / "report.json").exists()


def test_damaged_model(files: Path) -> None:
    """A file that only has the name of a saved model is refused."""
    (files / "model.keras").write_text("nothing")
    assert_refused(audit("model.keras"), "that Keras can load", "'model.keras'")


def test_module_that_does_not_import(files: Path) -> None:
    """A module that misses another one is told from a module that is not there."""
    (files / "models.py").write_text("import not_installed\n", encoding="utf-8")
    assert_refused(audit("models:right"), "'not_installed'", "models.py, line 1")
    assert_refused(audit("models.py:right"), "'not_installed'", "models.py, line 1")


def test_traceback_on_request() -> None:
    """With `--traceback` the user sees where the own code raised, and still the sentence."""
    result = audit("models.py:raising", "--traceback")
    assert result.exit_code == 2
    assert 'raise ArithmeticError("the weights\\nare gone")' in result.stderr
    assert result.stderr.strip().splitlines()[-1].startswith("Error: models.py:raising must run")


# -- batches -----------------------------------------------------------------------------------

TWO_INPUTS = """
import keras

def made(names):
    inputs = {name: keras.Input((2,), name=name) for name in names}
    x = keras.layers.Concatenate()(list(inputs.values()))
    outputs = [keras.layers.Dense(1, name="p")(x), keras.layers.Dense(1, name="q")(x)]
    return inputs, outputs

def listed():
    inputs, outputs = made("ab")
    model = keras.Model(list(inputs.values()), outputs)
    model.compile(loss=["mse", "mae"])
    return model

def named():
    inputs, (p, q) = made("ab")
    model = keras.Model(inputs, {"p": p, "q": q})
    model.compile(loss={"p": "mse", "q": "mae"})
    return model
"""


@pytest.mark.parametrize(
    ("function", "names"), [("listed", ("0", "1")), ("named", ("a", "b", "p", "q"))]
)
def test_several_inputs_and_outputs(files: Path, function: str, names: tuple[str, ...]) -> None:
    """`x/0, x/1` make a list and `x/a, x/b` a dict, in the order and under the names given."""
    (files / "two.py").write_text(TWO_INPUTS, encoding="utf-8")
    inputs, outputs = names[:2], names[-2:]
    arrays = {f"x__{name}": numbers(8, 2) for name in inputs}
    arrays |= {f"y__{name}": numbers(8, 1) for name in outputs}
    save_batch("two.npz", **arrays)
    result = audit(f"two.py:{function}", batch="two.npz")
    assert result.exit_code == 0, result.output
    assert "4 variables pass" in result.stdout


def test_more_than_ten_inputs_keep_their_order() -> None:
    """Numbered parts are ordered as numbers: `x/10` comes after `x/9`."""
    from tfcheck.scripts.batch_files import read_batch

    save_batch("many.npz", **{f"x__{place}": np.full(2, place) for place in range(12)})
    batch = read_batch(Path("many.npz"), 10**6)
    assert [int(part[0]) for part in batch["x"]] == list(range(12))
    assert (batch["y"], batch["sample_weight"]) == (None, None)


def test_sample_weights_count(files: Path) -> None:
    """Sample weights in the batch are in the loss that is checked."""
    batch = {"x": numbers(8, 3), "y": numbers(8, 1)}
    save_batch("weighted.npz", **batch, sample_weight=np.full(8, 10.0))
    audit("models.py:right", "--quiet", "--json", "plain.json")
    audit("models.py:right", "--quiet", "--json", "weighted.json", batch="weighted.npz")
    (plain,) = GradientReport.load("plain.json").objective.losses
    (weighted,) = GradientReport.load("weighted.json").objective.losses
    assert weighted == pytest.approx(10 * plain, rel=1e-6)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": numbers(8, 1)}, ("must hold the inputs x", "'y'")),
        ({}, ("must hold the inputs x", "no array")),
        ({"x": numbers(8, 3), "labels": numbers(8, 1)}, ("no other arrays", "'labels'")),
        ({"x": numbers(8, 3), "x__a": numbers(8, 3)}, ("either x or parts of it", "'x/a'")),
        ({"x__0": numbers(8, 3), "x__2": numbers(8, 3)}, ("without gaps", "'x/0', 'x/2'")),
        ({"x__": numbers(8, 3)}, ("no other arrays", "'x/'")),
        ({"x": np.array([{}, {}])}, ("plain arrays", "numpy.savez")),
        ({"x": numbers(8, 4), "y": numbers(8, 1)}, ("must fit the model", "float32[8, 4]")),
        ({"x": numbers(8, 3), "y": numbers(7, 1)}, ("same number of samples", "y (7, 1)")),
        ({"x": np.full((8, 3), np.nan), "y": numbers(8, 1)}, ("must be finite", "24 of 24")),
    ],
)
def test_batches_that_do_not_fit(
    files: Path, arrays: dict[str, np.ndarray], said: tuple[str, ...]
) -> None:
    """A batch that cannot be used is refused in one sentence, and no report is written."""
    save_batch("other.npz", **arrays)
    assert_refused(audit("models.py:right", "--html", "report.html", batch="other.npz"), *said)
    assert not (files / "report.html").exists()


def test_files_that_are_no_batch(files: Path) -> None:
    """A file that is missing, or is not an npz file, is refused."""
    np.save("single.npy", numbers(8, 3))
    for name, said in (
        ("missing.npz", "must exist"),
        ("models.py", "npz file of plain arrays"),
        ("single.npy", "npz file of plain arrays"),
        (".", "must exist"),
    ):
        assert_refused(audit("models.py:right", batch=name), said, f"batch={name!r}")


def test_batch_is_required() -> None:
    """Without a batch the command says which option is missing."""
    assert_refused(run("audit", "models.py:right"), "--batch")


# -- options -----------------------------------------------------------------------------------


def test_options_reach_the_check() -> None:
    """Every option of the check is in the report that is written."""
    options = {
        "--phase": "inference",
        "--method": "full",
        "--directions": "2",
        "--epsilon": "1e-6",
        "--great": "1e-6",
        "--okay": "1e-4",
        "--concerning": "1e-2",
        "--expected-mismatch": "first/*",
        "--seed": "5",
        "--precision": "0.3",
        "--dropout": "frozen",
        "--memory-limit": "1.5GiB",
        "--time-limit": "10m",
    }
    given = [word for option in options.items() for word in option]
    result = audit(
        "models.py:wrong", *given, "--expected-mismatch", "last/bias", "--json", "r.json"
    )
    assert result.exit_code == 0, result.output
    settings = GradientReport.load("r.json").settings
    assert (settings.phase, settings.method, settings.directions) == ("inference", "full", 2)
    assert (settings.epsilon, settings.seed, settings.precision) == (1e-6, 5, 0.3)
    assert (settings.memory_limit, settings.time_limit) == ("1.5GiB", 600.0)
    assert settings.dropout == "frozen"
    bands = settings.thresholds
    assert (bands.great, bands.okay, bands.concerning) == (1e-6, 1e-4, 1e-2)
    assert settings.expected_mismatch == ("first/*", "last/bias")


def test_defaults_are_those_of_the_api() -> None:
    """Without options the command checks as `check_gradients` does."""
    from tfcheck.settings import Settings

    audit("models.py:right", "--quiet", "--json", "r.json")
    found = GradientReport.load("r.json").settings
    assert found == Settings(batch_size=8, version=__version__)


def test_an_audit_repeats_itself() -> None:
    """Two audits of a function that draws its weights find the same numbers."""
    for name in ("1.json", "2.json"):
        audit("models.py:right", "--quiet", "--json", name)
    first, second = (GradientReport.load(name) for name in ("1.json", "2.json"))
    assert first.variables == second.variables


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--okay", "0.5"), ("0 < great <= okay < concerning <= 1", "0.5")),
        (("--epsilon", "tiny"), ("--epsilon", "'tiny'")),
        (("--epsilon", "-1"), ("--epsilon", "epsilon=-1.0", "from 1e-15 to 1")),
        (("--epsilon", "1e300"), ("--epsilon", "epsilon=1e+300")),
        (("--epsilon", "1e-300"), ("--epsilon", "epsilon=1e-300")),
        (("--epsilon", "nan"), ("--epsilon", "epsilon=nan")),
        (("--directions", "1000000000"), ("--directions", "1<=x<=1000")),
        (("--seed", "4294967296"), ("--seed", "x<=4294967295")),
        (("--great", "nan"), ("0 < great <= okay < concerning <= 1", "nan")),
        (("--memory-limit", "1"), ("--memory-limit", "at least 1MB")),
        (("--max-bytes", "100B"), ("at most 100 bytes", "'batch.npz'", "--max-bytes")),
        (("--max-bytes", "lots"), ("--max-bytes", "max-bytes must be a positive", "'lots'")),
        (("--directions", "0"), ("--directions", "0")),
        (("--memory-limit", "2 parsecs"), ("--memory-limit", "'2 parsecs'", '"2GB"')),
        (("--time-limit", "soon"), ("--time-limit", "'soon'", '"30s"')),
        (("--time-limit", "0"), ("--time-limit", "time_limit=0.0")),
        (("--memory-limit", "0"), ("--memory-limit", "memory_limit=0")),
        (("--method", "all"), ("--method", "'all'")),
        (("--expected-mismatch", "secnod/*"), ("'secnod/*'", "first")),
        (("--json", "missing/r.json"), ("folder that exists", "r.json")),
        (("--html", "."), ("folder that exists", "'.'")),
        (("--import", "missing_module"), ("must be importable", "'missing_module'")),
        (("--hurry",), ("--hurry",)),
    ],
)
def test_options_that_are_refused(
    files: Path, options: tuple[str, ...], said: tuple[str, ...]
) -> None:
    """An option that cannot be followed is refused in one sentence, and nothing is written."""
    before = set(files.iterdir())
    assert_refused(audit("models.py:right", *options), *said)
    left = {path.name for path in set(files.iterdir()) - before}
    assert left <= {"__pycache__"}


def test_another_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who has chosen another backend for Keras is told before anything is loaded."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert_refused(audit("models.py:right"), "KERAS_BACKEND='jax'", "KERAS_BACKEND=tensorflow")


# -- outputs -----------------------------------------------------------------------------------


def test_report_files() -> None:
    """`--json` writes a report that loads again, `--html` a page; both are named."""
    result = audit("models.py:wrong", "--json", "report.json", "--html", "report.html")
    report = GradientReport.load("report.json")
    assert report.verdict is Verdict.FAIL
    assert report.culprits == ("identity",)
    page = Path("report.html").read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "first/kernel" in page
    assert "Written: report.json" in result.stdout
    assert "Written: report.html" in result.stdout


def test_quiet() -> None:
    """`--quiet` prints nothing at all; the exit code and the files tell."""
    result = audit("models.py:wrong", "--quiet", "--json", "report.json")
    assert (result.exit_code, result.output) == (1, "")
    assert Path("report.json").exists()


def test_all_rows() -> None:
    """`--all` shows the passing variables that the table leaves out otherwise."""
    short, long = audit("models.py:many"), audit("models.py:many", "--all")
    assert "more variables, all pass" in short.stdout
    assert "more variables, all pass" not in long.stdout
    assert long.stdout.count("✓ pass") == 44


def test_mlflow() -> None:
    """`--mlflow` logs the report to a finished run, which holds what the table says."""
    import mlflow

    result = audit("models.py:wrong", "--mlflow", "--experiment", "audits", "--json", "r.json")
    assert result.exit_code == 1, result.output
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("audits")
    assert experiment is not None
    (run_found,) = client.search_runs([experiment.experiment_id])
    assert f"run {run_found.info.run_id}" in result.stdout
    assert run_found.info.status == "FINISHED"
    assert run_found.info.run_name == "audit of small"
    assert run_found.data.tags["gradcheck.verdict"] == "fail"
    assert run_found.data.tags["gradcheck.culprits"] == "identity"
    folder = Path(mlflow.artifacts.download_artifacts(run_id=run_found.info.run_id))
    (logged,) = folder.rglob("report.json")
    assert GradientReport.load(logged) == GradientReport.load("r.json")


# -- the command itself ------------------------------------------------------------------------


def test_version_and_help() -> None:
    """The version is the package's, and every command and every option is explained."""
    assert run("--version").output == f"tfcheck {__version__}\n"
    more = {"compare", "completion", "gate", "history", "sync"}
    assert set(main.commands) == {"audit", "demo", "ui", *more}
    overview = run("--help").output
    for name, command in main.commands.items():
        assert name in overview
        assert run(name, "-h").exit_code == 0
        assert [o.name for o in command.params if isinstance(o, click.Option) and not o.help] == []
    text = run("audit", "--help").output
    for word in (
        "x/0",
        "x/left",
        "Exit codes",
        "0  no gradient",
        "1  a gradient",
        "3  no gradient",
    ):
        assert word in text


def test_run_as_a_module_and_quiet_about_libraries(run_python: Callable[..., Any]) -> None:
    """`python -m tfcheck audit` works, and nothing that TensorFlow says reaches the user."""
    finished = run_python("-m", "tfcheck", "audit", "models.py:right", "--batch", "batch.npz")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("✓ PASS")


@pytest.fixture
def run_python(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run Python in the test's folder, without the settings of this process."""
    for name in ("KERAS_BACKEND", "TF_CPP_MIN_LOG_LEVEL", "MPLBACKEND"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8")

    def start(*arguments: str) -> Any:
        return subprocess.run(
            [sys.executable, *arguments],
            capture_output=True,
            encoding="utf-8",
            check=False,
            stdin=subprocess.DEVNULL,
        )

    return start


def test_noise_is_shown_when_the_import_fails(capfd: pytest.CaptureFixture[str]) -> None:
    """What libraries write to standard error while they load is hidden only if they load."""
    with surroundings.native_noise_held_back():
        os.write(2, b"chatter\n")
    assert capfd.readouterr().err == ""

    def failing_import() -> None:
        with surroundings.native_noise_held_back():
            os.write(2, b"libcuda is broken\n")
            raise ImportError

    with pytest.raises(ImportError):
        failing_import()
    assert capfd.readouterr().err == "libcuda is broken\n"


@pytest.mark.parametrize(
    ("called", "on_path", "name"),
    [
        ("bin/tfcheck", True, "tfcheck"),
        ("bin/tfcheck", False, "bin/tfcheck"),
        ("my tools/tfcheck", False, "'my tools/tfcheck'"),
        ("site/tfcheck/__main__.py", False, f"{sys.executable} -m tfcheck"),
        ("bin/pytest", True, "tfcheck"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="other paths")
def test_command_name(
    files: Path, monkeypatch: pytest.MonkeyPatch, called: str, on_path: bool, name: str
) -> None:
    """The commands that are printed for the user to type work where they are printed."""
    script = files / called
    script.parent.mkdir(parents=True)
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", str(script.parent) if on_path else str(files / "empty"))
    assert surroundings.command_name() == name


# -- unit tests of culprits ----------------------------------------------------------------------


def test_reproduction() -> None:
    """A test of the wrong layer is written and named, with the command that runs it."""
    result = audit("models.py:wrong", "--reproduce", "made/tests")
    assert result.exit_code == 1, result.output
    test = Path("made/tests/test_gradient_of_identity.py")
    assert f"Written: {test}." in result.stdout
    assert f"python -m pytest {test}\n" in result.stdout
    assert "from models import Identity" in test.read_text(encoding="utf-8")
    assert 'str(HERE / "../..")' in test.read_text(encoding="utf-8")
    with np.load("made/tests/identity_inputs.npz") as saved:
        assert saved["input_0"].shape == (8, 2)
    quiet = audit("models.py:wrong", "--reproduce", "made/tests", "--quiet")
    assert (quiet.exit_code, quiet.output) == (1, "")


def test_nothing_to_reproduce() -> None:
    """Where no layer is to blame nothing is written, and one line says so."""
    result = audit("models.py:right", "--reproduce", "tests")
    assert result.exit_code == 0, result.output
    assert "There is nothing to reproduce: no layer is to blame." in result.stdout
    assert not Path("tests").exists()


def test_a_culprit_without_a_test() -> None:
    """A culprit of which no test can be made is a warning with the reason; the verdict stands."""
    Path("inside.py").write_text(
        "import models\n\n\ndef wrong():\n"
        "    class Inside(models.Identity):\n        pass\n\n"
        "    return models.model(Inside(2.0, name='inside'))\n",
        encoding="utf-8",
    )
    result = audit("inside.py:wrong", "--reproduce", "tests", "--quiet")
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Warning: There is no test of inside. A test must import what it is of.")
    assert not Path("tests").exists()


@pytest.mark.parametrize("folder", ["models.py", "models.py/tests", "/dev/null/tests"])
def test_folders_that_are_none(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be made is refused before any work."""
    monkeypatch.setattr("tfcheck.scripts.batch_files.read_batch", lambda *_: pytest.fail("worked"))
    result = audit("models.py:wrong", "--reproduce", folder)
    assert_refused(result, "Tests must be written to a folder", f"folder={folder!r}")
