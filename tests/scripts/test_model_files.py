"""Saved models of both formats: they are loaded as they were compiled, or the remedy works."""

# mypy: allow-subclassing-any

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from tfcheck.errors import ModelError
from tfcheck.scripts.model_files import load_saved
from tfcheck.scripts.model_sources import load_model, model_source

LIMIT = 100_000_000
X, Y = np.linspace(-1, 1, 12).reshape(4, 3), np.ones((4, 1))


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    """Forget what a test registers."""
    before = dict(keras.saving.get_custom_objects())
    yield
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(before)


def model(outputs: tuple[str, ...] = ("only",), *layers: Any) -> keras.Model:
    """A model with so many outputs."""
    x = start = keras.Input((3,))
    for layer in layers:
        x = layer(x)
    ends = [keras.layers.Dense(1, name=name)(x) for name in outputs]
    return keras.Model(start, ends if len(ends) > 1 else ends[0])


def custom_loss(y: Any, predicted: Any) -> Any:
    """A loss of the user's own."""
    return keras.ops.mean(keras.ops.abs(y - predicted) ** 3)


def saved(made: keras.Model, file: Path) -> Path:
    """The file, with this model in it."""
    made.save(file)
    return file


COMPILED: dict[str, Callable[[], dict[str, Any]]] = {
    "short name": lambda: {"loss": "mse"},
    "capitals": lambda: {"loss": "MAE"},
    "long name": lambda: {"loss": "mean_squared_error", "metrics": ["mae", "accuracy"]},
    "class name": lambda: {"loss": "MeanSquaredError"},
    "function": lambda: {"loss": keras.losses.huber},
    "class": lambda: {"loss": keras.losses.BinaryCrossentropy(from_logits=True)},
    "sum": lambda: {"loss": keras.losses.MeanSquaredError(reduction="sum")},
    "clipping": lambda: {"loss": "mse", "optimizer": keras.optimizers.Adam(clipnorm=0.1)},
    "loss scale": lambda: {
        "loss": "mse",
        "optimizer": keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()),
    },
    "metrics": lambda: {"loss": "mse", "metrics": ["mse"], "weighted_metrics": ["mape"]},
}


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("name", COMPILED)
def test_compiled_models(tmp_path: Path, name: str, suffix: str) -> None:
    """A model is loaded with its weights, its loss and its optimizer, as it was compiled."""
    made = model()
    made.compile(**COMPILED[name]())
    loaded = load_saved(saved(made, tmp_path / f"model{suffix}"), False, LIMIT)
    assert losses(loaded) == pytest.approx(losses(made), rel=1e-5)
    assert type(loaded.optimizer) is type(made.optimizer)
    assert loaded.optimizer.clipnorm == made.optimizer.clipnorm


def losses(compiled: keras.Model) -> float:
    """The loss on the same batch, always."""
    targets: Any = Y if len(compiled.outputs) == 1 else [Y] * len(compiled.outputs)
    return float(compiled.compute_loss(None, targets, compiled(X)))


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize(
    "options",
    [
        {"loss": ["mse", "mae"], "loss_weights": [1.0, 20.0]},
        {"loss": {"p": "mse", "q": keras.losses.MeanAbsoluteError()}, "metrics": {"p": ["mse"]}},
        {"loss": ["mse", None]},
    ],
    ids=["list", "dict", "one without"],
)
def test_several_outputs(tmp_path: Path, options: dict[str, Any], suffix: str) -> None:
    """Lists and dicts of losses, and their weights, are what they were."""
    made = model(("p", "q"))
    made.compile(**options)
    loaded = load_saved(saved(made, tmp_path / f"model{suffix}"), False, LIMIT)
    assert losses(loaded) == pytest.approx(losses(made), rel=1e-5)


def test_words_of_keras_2(tmp_path: Path) -> None:
    """A file that Keras 2 wrote names a reduction and arguments that Keras 3 does not know."""
    made = model()
    made.compile(keras.optimizers.Adam(clipvalue=0.5), keras.losses.MeanSquaredError())
    file = saved(made, tmp_path / "model.h5")
    with h5py.File(file, "a") as content:
        config = json.loads(content.attrs["training_config"])
        config["loss"]["config"] |= {"reduction": "auto"}
        config["optimizer_config"]["config"] |= {"jit_compile": True, "decay": 0.1}
        config["optimizer_config"]["config"] |= {"is_legacy_optimizer": False}
        content.attrs["training_config"] = json.dumps(config)
    loaded = load_saved(file, False, LIMIT)
    assert losses(loaded) == pytest.approx(losses(made), rel=1e-5)
    assert loaded.optimizer.clipvalue == 0.5


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_loss_of_ones_own(tmp_path: Path, suffix: str, when: str) -> None:
    """The remedy for an unknown loss works, whether it was registered when the model was saved."""
    registered = keras.saving.register_keras_serializable("mine")
    made = model()
    made.compile(loss=registered(custom_loss) if when == "before" else custom_loss)
    file = saved(made, tmp_path / f"model{suffix}")
    keras.saving.get_custom_objects().clear()
    with pytest.raises(
        ModelError, match=r"the function '.*custom_loss'.*register_keras_seri.*--import"
    ):
        load_saved(file, False, LIMIT)
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    loaded = load_model(
        model_source(str(file)), [str(tmp_path / "own.py")], False, None, seed=0, max_bytes=LIMIT
    )
    assert losses(loaded) == pytest.approx(losses(made), rel=1e-5)


OWN = """
import keras

@keras.saving.register_keras_serializable("mine")
def custom_loss(y, predicted):
    return keras.ops.mean(keras.ops.abs(y - predicted) ** 3)

@keras.saving.register_keras_serializable("mine")
class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""


class Doubled(keras.layers.Layer):
    def call(self, x: Any) -> Any:
        return 2 * x


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_layer_of_ones_own(tmp_path: Path, suffix: str, when: str) -> None:
    """The remedy for an unknown layer works, too."""
    kind: Any = Doubled
    if when == "before":
        kind = keras.saving.register_keras_serializable("mine")(Doubled)
    made = model(("only",), kind())
    made.compile(loss="mse")
    file = saved(made, tmp_path / f"model{suffix}")
    keras.saving.get_custom_objects().clear()
    with pytest.raises(ModelError, match=r"the \w+ '.*Doubled'.*register_keras_seri.*--import"):
        load_saved(file, False, LIMIT)
    (tmp_path / "own.py").write_text(OWN, encoding="utf-8")
    loaded = load_model(
        model_source(str(file)), [str(tmp_path / "own.py")], False, None, seed=0, max_bytes=LIMIT
    )
    np.testing.assert_allclose(loaded(X), made(X), rtol=1e-6)


def test_names_of_keras_are_keras_own(tmp_path: Path) -> None:
    """A registered layer of the user's that is called as one of Keras's does not take its place."""

    @keras.saving.register_keras_serializable("mine")
    class Dense(keras.layers.Layer):
        pass

    made = model()
    made.compile(loss="mse")
    loaded = load_saved(saved(made, tmp_path / "model.h5"), False, LIMIT)
    assert type(loaded.layers[-1]) is keras.layers.Dense


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_stored_code(tmp_path: Path, suffix: str) -> None:
    """Python code in a file is not run, and the remedy works for those who trust it."""
    made = model(("only",), keras.layers.Lambda(lambda x: 2 * x))
    made.compile(loss="mse")
    file = saved(made, tmp_path / f"model{suffix}")
    with pytest.raises(ModelError, match=r"does not run the Python code.*--unsafe"):
        load_saved(file, False, LIMIT)
    assert losses(load_saved(file, True, LIMIT)) == pytest.approx(losses(made), rel=1e-5)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
def test_models_without_a_loss(tmp_path: Path, suffix: str) -> None:
    """The remedy for a model that was not compiled works."""
    file = saved(model(), tmp_path / f"model{suffix}")
    options: dict[str, Any] = {"seed": 0, "max_bytes": LIMIT}
    with pytest.raises(ModelError, match=r"must be compiled.*--loss"):
        load_model(model_source(str(file)), [], False, None, **options)
    assert load_model(model_source(str(file)), [], False, "mse", **options).loss == "mse"
