"""Unit tests of culprits: they fail today, and pass when the layer is mended."""

from __future__ import annotations

import gc
import io
import pickle
import shutil
import subprocess
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import by_a_factor
import keras
import numpy as np
import pytest
from fingerprint import nothing_changes

from tfcheck import GradientReport, Thresholds, Verdict, check_gradients, check_layer
from tfcheck.checker import GradientChecker
from tfcheck.errors import ReproductionError
from tfcheck.report.reproduction import Reproduction
from tfcheck.reproduce import plain_calls
from tfcheck.reproduce.case import Case as CaseOfACulprit
from tfcheck.settings import make_settings
from tfcheck.trace.batch import first_batch

L = keras.layers
RNG = np.random.default_rng(0)
X = RNG.normal(size=(8, 3)).astype("float32")
IDS = RNG.integers(1, 5, size=(8, 4))
Y = np.ones((8, 1), "float32")

Case = tuple[keras.Model, Any, Any]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with the package of wrong layers, which is importable, and its mended twin."""
    root = tmp_path_factory.mktemp("projects")
    source = Path(by_a_factor.__file__).read_text(encoding="utf-8")
    for name, text in (("wrong", source), ("mended", source.replace("WRONG = 2.0", "WRONG = 1.0"))):
        package = root / name / "mypackage"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "layers.py").write_text(text, encoding="utf-8")
    sys.path.insert(0, str(root / "wrong"))
    yield root
    sys.path.remove(str(root / "wrong"))
    for module in ("mypackage", "mypackage.layers"):
        sys.modules.pop(module, None)


@pytest.fixture
def own(project: Path) -> Any:
    """The module of wrong layers, as a user has it."""
    from mypackage import layers  # type: ignore[import-not-found]

    return layers


def chain(
    *layers: keras.Layer, loss: Any = "mse", kind: type = keras.Model, **options: Any
) -> Case:
    """A model of these layers, between dense ones."""
    keras.utils.set_random_seed(0)
    x = start = keras.Input((3,))
    for layer in (L.Dense(3, name="first"), *layers, L.Dense(1, name="last")):
        x = layer(x)
    model = kind(start, x, name="net")
    model.compile("sgd", loss, **options)
    return model, X, Y


def joined(join: Callable[[Any, Any], Any]) -> Case:
    """A model in which a layer is given two tensors."""
    start = keras.Input((3,))
    model = keras.Model(start, L.Dense(1)(join(L.Dense(3)(start), L.Dense(3)(start))), name="net")
    model.compile("sgd", "mse")
    return model, X, Y


def of_ids(*layers: keras.Layer) -> Case:
    """A model of integers."""
    x = start = keras.Input((4,), dtype="int32")
    for layer in layers:
        x = layer(x)
    model = keras.Model(start, L.Dense(1)(x), name="net")
    model.compile("sgd", "mse")
    return model, IDS, Y


def trained(own: Any) -> Case:
    """A layer that is wrong only with the weights it has after training."""
    case = chain(own.WrongWhereTrained(name="trained"))
    case[0].get_layer("trained").factor.assign([3.0, 1.0, 1.0])
    return case


def quiet(own: Any) -> Case:
    """A layer that is wrong only for gradients as small as those it gets."""
    model, x, _ = chain(own.Quiet(name="quiet"))
    return model, x, model.predict(x, verbose=0) + 1e-4


def whole(own: Any) -> Case:
    """A model that is to blame itself."""
    model = own.Whole(name="whole")
    model(X)
    model.compile("sgd", "mse")
    return model, X, Y


def half(own: Any) -> Case:
    """A layer of a model that trains in mixed precision."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return chain(own.InTraining(name="half"))
    finally:
        keras.config.set_dtype_policy("float32")


CASES: dict[str, Callable[[Any], Case]] = {
    "scale": lambda own: chain(own.Scale(name="scale")),
    "trained": trained,
    "difference": lambda own: joined(lambda a, b: own.Difference(name="difference")([a, b])),
    "weighed": lambda own: joined(
        lambda a, b: own.Weighed(name="weighed")({"value": a, "weight": b})
    ),
    "attend": lambda own: joined(lambda a, b: own.Attend(name="attend")(a, context=b, sharp=0.5)),
    "inner_deep": lambda own: chain(
        keras.Sequential([L.Dense(3), own.InTraining(name="deep")], name="inner")
    ),
    "rows": lambda own: of_ids(own.Rows(5, name="rows"), L.Flatten()),
    "mean": lambda own: of_ids(L.Embedding(7, 3, mask_zero=True), own.MaskedMean(name="mean")),
    "block": lambda own: chain(own.Block(name="block")),
    "quiet": quiet,
    "bent": lambda own: chain(L.Dense(4, activation=own.bent, name="bent")),
    "bare": lambda own: chain(L.Lambda(own.squared, name="bare")),
    "wrapped": lambda own: chain(own.Wrapped(L.Dense(4), name="wrapped")),
    "blocked": lambda own: chain(own.Blocked(name="blocked")),
    "eager": lambda own: chain(own.InTraining(name="eager"), run_eagerly=True),
    "half": half,
    "graph_only": lambda own: chain(own.GraphOnly(name="graph_only")),
    "recurrent": lambda own: chain(
        L.Reshape((3, 1)), L.RNN(own.Cell(4), name="recurrent"), L.Dense(2)
    ),
    "whole": whole,
    "squares": lambda own: chain(loss=own.Squares()),
    "mean_of_squares": lambda own: chain(loss=own.mean_of_squares),
    "loss": lambda own: chain(loss=own.loss),
}


def checked(case: Case, **options: Any) -> GradientReport:
    """The report on a case, which fails."""
    report = check_gradients(*case, **options)
    assert report.verdict is Verdict.FAIL, str(report)
    return report


_reports: dict[str, GradientReport] = {}


def report_of(name: str, own: Any) -> GradientReport:
    """The report on a case, made once for all tests."""
    if name not in _reports:
        _reports[name] = checked(CASES[name](own), directions=2)
    return _reports[name]


def arrays_of(reproduction: Reproduction | None) -> dict[str, Any]:
    """What is in the npz file."""
    assert reproduction is not None
    with np.load(io.BytesIO(reproduction.arrays)) as saved:
        return dict(saved)


def run_tests(folder: Path) -> subprocess.Popen[str]:
    """Run pytest on a folder, in a process of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rA", str(folder)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


def outcomes(process: subprocess.Popen[str], word: str) -> set[str]:
    """The culprits whose tests had this outcome."""
    text = process.communicate(timeout=300)[0]
    lines = [line for line in text.splitlines() if line.startswith(f"{word} ")]
    found = {line.split("::test_gradient_of_")[1].split()[0] for line in lines}
    assert found, text
    return found


def test_each_fails_today_and_passes_when_mended(own: Any, project: Path) -> None:
    """What pytest makes of the files that are written, as things are and with a mended package."""
    tests = project / "wrong" / "tests"
    for name in CASES:
        written = report_of(name, own).reproduce(tests)
        assert written == (tests / f"test_gradient_of_{name}.py",)
    shutil.copytree(tests, project / "mended" / "tests")
    today, mended = (run_tests(project / name / "tests") for name in ("wrong", "mended"))
    assert outcomes(mended, "PASSED") == set(CASES)
    assert outcomes(today, "FAILED") == set(CASES)


def test_the_message_shows_the_worst_variable(own: Any, tmp_path: Path) -> None:
    """Who reads the failure of the test sees which gradient is wrong, and by how much."""
    (test,) = report_of("scale", own).reproduce(tmp_path)
    scope: dict[str, Any] = {"__file__": str(test)}
    exec(compile(test.read_text(encoding="utf-8"), str(test), "exec"), scope)  # noqa: S102
    with pytest.raises(AssertionError, match=r"worst       scale/factor, score 3.3e-1"):
        scope["test_gradient_of_scale"]()


def test_what_is_saved_is_what_was_given(own: Any) -> None:
    """The inputs, the weights and a mask as they are at the failing point, and no more."""
    model, x, _ = case = CASES["trained"](own)
    saved = arrays_of(checked(case).reproduction)
    assert set(saved) == {"input_0", "weight_0"}
    np.testing.assert_array_equal(saved["weight_0"], [3.0, 1.0, 1.0])
    np.testing.assert_allclose(saved["input_0"], model.get_layer("first")(x), rtol=1e-6)
    saved = arrays_of(report_of("mean", own).reproduction)
    np.testing.assert_array_equal(saved["mask"], IDS != 0)
    saved = arrays_of(report_of("quiet", own).reproduction)
    assert set(saved) == {"input_0", "output_gradient"}


def test_options_of_the_check_are_those_of_the_test(own: Any) -> None:
    """A test that is stricter or laxer than the check would be another one."""
    laxer = Thresholds(concerning=1e-2)
    options = {"seed": 7, "directions": 6, "thresholds": laxer, "phase": "inference"}
    found = checked(CASES["scale"](own), **options).reproduction
    usual = report_of("scale", own).reproduction
    assert found is not None
    assert usual is not None
    assert f"thresholds=tfcheck.{laxer!r}" in found.source
    for option in ("seed=7", "directions=6", 'phase="inference"', "concerning=0.01"):
        assert option in found.source
        assert option not in usual.source


REFUSED: dict[str, tuple[Callable[[Any], Case], str]] = {
    "made in a function": (
        lambda own: chain(own.made_inside()),
        "Received: Inside, which made_inside makes. Define it at the top of a module.",
    ),
    "a lambda": (
        lambda own: chain(L.Lambda(lambda x: 1.0 * own.squared(x), name="bare")),
        "Received: Lambda of a lambda",
    ),
    "no config": (
        lambda own: chain(own.Unsaved(own.squared, name="unsaved")),
        "Received: Unsaved, which cannot be",
    ),
    "a train_step": (
        lambda own: chain(kind=own.SquaredInStep),
        "Received: train_step, where what is wrong is in no such unit. Move it into",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_reproduced(name: str, own: Any, tmp_path: Path) -> None:
    """There is no test, nothing is written, and one sentence says why and what to do."""
    make, said = REFUSED[name]
    report = checked(make(own))
    assert report.reproduction is None
    with pytest.raises(ReproductionError) as raised:
        report.reproduce(tmp_path / "tests")
    assert said in str(raised.value)
    assert not (tmp_path / "tests").exists()


def test_right_models_keep_nothing() -> None:
    """A report of what passes holds no arrays, and says that there is nothing to reproduce."""
    report = check_gradients(*chain(L.Dense(3)))
    assert report.verdict is Verdict.PASS
    assert report.evidence == ()
    with pytest.raises(ReproductionError, match="verdict 'pass' and no culprit"):
        report.reproduce(".")


def test_a_report_keeps_no_model_alive(own: Any, tmp_path: Path) -> None:
    """A model is gone when its owner drops it; the report can be pickled, and still be tested."""
    case = CASES["wrapped"](own)
    report = checked(case)
    gone = weakref.ref(case[0])
    del case
    keras.backend.clear_session()
    gc.collect()
    assert gone() is None
    again = pickle.loads(pickle.dumps(report))
    assert again == report
    assert [test.name for test in again.reproduce(tmp_path)] == ["test_gradient_of_wrapped.py"]


def test_a_saved_report_has_no_arrays(own: Any, tmp_path: Path) -> None:
    """JSON holds the report alone; asked for a test, one that was loaded says to check again."""
    report = report_of("wrapped", own)
    loaded = GradientReport.load(report.save(tmp_path / "report.json"))
    assert loaded == report
    assert loaded.reproduction is None
    with pytest.raises(
        ReproductionError, match=r"read from a file, .* culprits \('wrapped',\) alone\. Check again"
    ):
        loaded.reproduce(tmp_path)


def test_nothing_changes(own: Any) -> None:
    """Neither noting what a layer is given nor trying out a test of it changes anything."""
    case = CASES["block"](own)
    report = checked(case)
    with nothing_changes(case[0], own):
        checked(case)
        assert report.reproduction is not None


def test_long_batches_are_cut(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a report keeps, and what goes beside a test, is small however large the batch."""
    model, x, y = CASES["scale"](own)
    monkeypatch.setattr(plain_calls, "MOST_BYTES", 2 * 5 * 3 * 4)
    assert arrays_of(checked((model, x, y)).reproduction)["input_0"].shape == (5, 3)
    monkeypatch.setattr(plain_calls, "MOST_BYTES", 4)
    report = checked((model, x, y))
    with pytest.raises(ReproductionError, match=r"A test must be small\. Received: scale"):
        report.reproduce(".")


def test_a_script_that_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer in the script that runs is imported from its file, if that trains only when run."""
    script = tmp_path / "train.py"
    code = Path(by_a_factor.__file__).read_text(encoding="utf-8")
    script.write_text(f'{code}\nif __name__ == "__main__":\n    ...\n', encoding="utf-8")
    main = types.ModuleType("__main__")
    main.__file__ = str(script)
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(compile(code, str(script), "exec"), vars(main))  # noqa: S102 - as Python runs a script
    (test,) = checked(chain(main.Scale(name="scale"))).reproduce(tmp_path / "tests")
    assert "from train import Scale" in test.read_text(encoding="utf-8")
    script.write_text("model.fit()\n", encoding="utf-8")
    with pytest.raises(ReproductionError, match=r"Scale in train\.py, which runs when it is"):
        checked(chain(main.Scale(name="scale"))).reproduce(tmp_path)


def test_many_culprits(own: Any) -> None:
    """Tests are made of the first few of many, and of the others it is said why not."""
    report = checked(chain(*(own.Scale(name=f"scale_{number}") for number in range(10))))
    assert len(report.evidence) == len(report.culprits) == 10
    refused = [evidence.refusal for evidence in report.evidence if evidence.refusal]
    assert [text.partition("Received: ")[2][:8] for text in refused] == ["scale_8,", "scale_9,"]


def test_a_test_that_passed_is_tried_anew(own: Any) -> None:
    """Where a check sees nothing that fails alone, what a later one sees is tried, too."""
    model, x, y = CASES["scale"](own)
    settings = make_settings(
        phase="train",
        method="directions",
        directions=4,
        epsilon="auto",
        thresholds=Thresholds(),
        expected_mismatch=(),
        seed=0,
    )
    checker = GradientChecker(model, settings)
    batch = first_batch(x, y)
    first, second = (checker.check(batch).evidence[0] for _ in range(2))
    assert first is second
    assert isinstance(first, CaseOfACulprit)
    object.__setattr__(first, "outcome", ReproductionError("passed"))
    assert first.is_spent
    third = checker.check(batch).evidence[0]
    assert third is not first
    assert isinstance(third.outcome, Reproduction)


def test_other_files_are_left_alone(own: Any, tmp_path: Path) -> None:
    """A test of tfcheck's is written anew, one of somebody else's is not overwritten."""
    report = report_of("bare", own)
    (test,) = report.reproduce(tmp_path)
    assert report.reproduce(tmp_path) == (test,)
    test.write_text("def test_of_mine(): ...\n", encoding="utf-8")
    with pytest.raises(ReproductionError, match=r"overwrites no other file\. Received: file="):
        report.reproduce(tmp_path)
    assert "mine" in test.read_text(encoding="utf-8")
    with pytest.raises(ReproductionError, match="must be written to a folder"):
        report.reproduce(test)


def test_a_layer_checked_alone_is_reproduced(own: Any) -> None:
    """So is what is found in a notebook with `check_layer`."""
    report = check_layer(own.Difference(name="alone"), [X, X + 1])
    assert report.verdict is Verdict.FAIL
    assert report.reproduction is not None
    assert report.reproduction.culprit == "alone"
    np.testing.assert_array_equal(arrays_of(report.reproduction)["input_0_1"], X + 1)
