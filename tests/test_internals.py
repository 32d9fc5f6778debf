"""What tfcheck relies on of TensorFlow's and Keras's private parts, so that a change is noticed."""

# mypy: allow-subclassing-any

from __future__ import annotations

import ast
import inspect
import re
import threading
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfcheck
from tfcheck import internals

FLOAT, DOUBLE = tf.float32.as_datatype_enum, tf.float64.as_datatype_enum


def model_of(*layers: keras.layers.Layer, **how: Any) -> Any:
    """A small compiled model."""
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **how})
    return model


# -- TensorFlow ------------------------------------------------------------------------------


def test_operations_have_definitions() -> None:
    """An operation's definition tells its arguments, attributes and whether it has state."""
    product = internals.op_definition("MatMul")
    assert product is not None
    assert [a.name for a in product.input_arg] == ["a", "b"]
    assert [a.type_attr for a in product.output_arg] == ["T"]
    (dtype,) = (a for a in product.attr if a.name == "T")
    assert dtype.type == "type"
    assert {FLOAT, DOUBLE} <= set(dtype.allowed_values.list.type)
    assert not product.is_stateful
    drawing = internals.op_definition("RandomStandardNormal")
    assert drawing is not None
    assert drawing.is_stateful


def test_unknown_operations_have_none() -> None:
    """An operation that TensorFlow does not know has no definition, and raises nothing."""
    assert internals.op_definition("NoSuchOperation") is None


@pytest.mark.parametrize(
    ("op", "types", "exists"),
    [
        ("MatMul", {"T": DOUBLE}, True),
        ("Conv2D", {"T": DOUBLE}, True),
        ("MaxPool3D", {"T": FLOAT}, True),
        ("MaxPool3D", {"T": DOUBLE}, False),
        ("MatMul", {"T": tf.string.as_datatype_enum}, False),
        ("Cast", {"SrcT": FLOAT, "DstT": DOUBLE}, True),
        ("Softmax", {}, True),
    ],
)
def test_kernels(op: str, types: dict[str, int], exists: bool) -> None:
    """The registry of kernels tells for which types an operation runs on a CPU."""
    assert internals.has_cpu_kernel(op, types) is exists


def test_handles_know_their_variable() -> None:
    """A captured handle knows its variable's shape and type; a resource that is none has none."""
    for dtype in (tf.float16, tf.float32, tf.int64, tf.bool):
        handle = tf.Variable(tf.zeros((2,), dtype)).handle
        assert internals.variable_spec(handle) == tf.TensorSpec((2,), dtype)
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(["a"], [1]), default_value=0
    )
    assert internals.variable_spec(table.resource_handle) is None
    assert internals.variable_spec(tf.constant(1.0)) is None


def test_tapes_know_what_they_watch() -> None:
    """What comes of a watched tensor is watched; of others, or past stop_gradient, it is not."""
    with tf.GradientTape() as tape:
        x = tf.constant([1.0])
        unknown = 2 * x
        tape.watch(x)
        known = 2 * x
        assert internals.is_watched(known)
        assert not internals.is_watched(unknown)
        assert not internals.is_watched(tf.stop_gradient(known))
    assert not internals.is_watched(known)


# -- Keras -----------------------------------------------------------------------------------


def test_sublayers_are_all_layers() -> None:
    """Every layer is found once, however deep, wrapped, shared or kept in lists and dicts."""
    shared = keras.layers.Dense(3, name="shared")

    class Holder(keras.layers.Layer):
        def __init__(self) -> None:
            super().__init__(name="holder")
            self.listed = [keras.layers.Dense(3, name="listed"), shared]
            self.named = {"a": keras.layers.Dense(3, name="in_dict")}

        def call(self, x: Any) -> Any:
            return self.named["a"](self.listed[1](self.listed[0](x)))

    cell = keras.layers.GRUCell(2, name="cell")
    model = keras.Sequential(
        [
            keras.Input((4, 3)),
            keras.Sequential([shared], name="inner"),
            Holder(),
            keras.layers.Bidirectional(keras.layers.RNN(cell, name="rnn"), name="both"),
        ],
        name="outer",
    )
    layers = list(internals.sublayers(model))
    names = [layer.name for layer in layers]
    assert len(layers) == len({id(layer) for layer in layers})
    assert {"outer", "inner", "shared", "holder", "listed", "in_dict", "both"} <= set(names)
    assert sum("cell" in name for name in names) == 2


def test_recorded_losses_are_those_of_add_loss() -> None:
    """What `add_loss` was given is in the containers, and emptying them forgets it."""

    class Adding(keras.layers.Layer):
        def call(self, x: Any) -> Any:
            self.add_loss(keras.ops.mean(x))
            return x

    layer = Adding()
    layer(np.ones((2, 3), "float32"))
    kept, ids = internals.recorded_losses(layer)
    assert isinstance(kept, list)
    assert isinstance(ids, set)
    assert len(kept) == len(layer.losses) == 1
    assert kept[0] is layer.losses[0]
    kept.clear()
    ids.clear()
    assert layer.losses == []


def test_live_variables() -> None:
    """Behind a Keras variable is one tf.Variable, also where reads of it are cast."""
    layer = keras.layers.Dense(2, dtype="mixed_float16")
    layer.build((None, 3))
    live = internals.live_variable(layer.kernel)
    assert isinstance(live, tf.Variable)
    assert live.dtype == tf.float32
    seen: list[Any] = []

    class Spy(keras.layers.Dense):
        def call(self, x: Any) -> Any:
            seen.append(internals.live_variable(self.kernel))
            return super().call(x)

    spy = Spy(2, dtype="mixed_float16")
    spy(np.ones((1, 3)))
    assert seen[0] is internals.live_variable(spy.kernel)
    assert seen[0].dtype == tf.float32
    raw = tf.Variable(1.0)
    assert internals.live_variable(raw) is raw


def test_masks_travel_in_an_attribute() -> None:
    """A mask copied to another tensor reaches the next layer."""
    masked = keras.layers.Masking()(np.array([[[1.0], [0.0]]], "float32"))
    copied = tf.identity(masked)
    internals.copy_mask(masked, copied)
    received: list[Any] = []

    class Spy(keras.layers.Layer):
        supports_masking = True

        def call(self, x: Any, mask: Any = None) -> Any:
            received.append(mask)
            return x

    Spy()(copied)
    np.testing.assert_array_equal(received[0], [[True, False]])
    unmasked = tf.constant([1.0])
    internals.copy_mask(unmasked, copied_too := tf.identity(unmasked))
    assert getattr(copied_too, "_keras_mask", None) is None


# -- what is patched during a trace ----------------------------------------------------------


def test_optimizers_share_a_base_class() -> None:
    """Every Keras optimizer applies gradients through one base class or an `apply` of its own."""
    base = keras.optimizers.Optimizer
    named = [
        value
        for value in vars(keras.optimizers).values()
        if inspect.isclass(value) and issubclass(value, base)
    ]
    assert {keras.optimizers.SGD, keras.optimizers.LossScaleOptimizer} <= set(named)
    for optimizer in named:
        owners = [kind for kind in optimizer.__mro__ if "apply" in vars(kind)]
        assert owners
        assert all(issubclass(kind, base) or kind in base.__mro__ for kind in owners)


def test_apply_gradients_goes_through_apply(monkeypatch: pytest.MonkeyPatch) -> None:
    """The older way to apply gradients ends in `apply`, on the class that is patched."""
    heard: list[Any] = []
    monkeypatch.setattr(
        keras.optimizers.Optimizer, "apply", lambda _self, grads, variables: heard.append(variables)
    )
    variable = keras.Variable(1.0)
    keras.optimizers.Adam().apply_gradients([(tf.constant(1.0), variable)])
    assert len(heard) == 1
    assert heard[0][0] is variable


def test_scaled_losses_come_from_scale_loss() -> None:
    """Only the loss-scaling optimizer changes a loss, by a factor, in `scale_loss`."""
    plain = keras.optimizers.SGD()
    loss = tf.constant(2.0)
    assert plain.scale_loss(loss) is loss
    scaling = keras.optimizers.LossScaleOptimizer(plain, initial_scale=8.0)
    scaling.build([keras.Variable(1.0)])
    assert float(scaling.scale_loss(loss)) == 16.0


def test_the_train_step_is_made_of_what_is_heard() -> None:
    """Keras's own train_step uses a gradient tape, the optimizer's apply and compute_metrics."""
    code = inspect.getsource(keras.Model.train_step)
    assert "tf.GradientTape()" in code
    assert "tape.gradient(" in code
    assert re.search(r"optimizer\.apply(_gradients)?\(", code)
    assert "compute_metrics(" in code
    assert "gradient" in vars(tf.GradientTape)
    assert callable(keras.Layer.__call__)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.Dropout(0.5),
        keras.layers.SpatialDropout1D(0.5),
        keras.layers.LSTM(2, dropout=0.5),
        keras.layers.GRU(2, recurrent_dropout=0.5),
        keras.layers.Attention(dropout=0.5),
        keras.layers.MultiHeadAttention(1, 2, dropout=0.5),
    ],
    ids=lambda layer: layer.name,
)
def test_layers_draw_what_they_drop_in_one_place(
    layer: keras.layers.Layer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that place gives everything back, a call in training is that of inference."""
    x = np.random.default_rng(0).normal(size=(2, 4, 3)).astype("float32")
    arguments: Any = (x,)
    if isinstance(layer, keras.layers.Attention):
        arguments = ([x, x],)
    elif isinstance(layer, keras.layers.MultiHeadAttention):
        arguments = (x, x)
    expected = layer(*arguments, training=False)
    assert not np.allclose(layer(*arguments, training=True), expected)
    monkeypatch.setattr(*internals.drawing_of_dropout(), lambda inputs, *_args, **_options: inputs)
    np.testing.assert_allclose(layer(*arguments, training=True), expected, rtol=1e-6)


def test_what_keras_keeps_for_a_thread() -> None:
    """Names that it counts and the global seed generator are there; other threads have others."""
    keras.layers.Dense(1)
    keras.random.normal((1,))
    state, _settings = internals.global_state_of_keras()
    assert state["object_name_uids"]["dense"] >= 1
    assert isinstance(state["global_seed_generator"], keras.random.SeedGenerator)
    elsewhere: list[Any] = []
    thread = threading.Thread(target=lambda: elsewhere.append(internals.global_state_of_keras()))
    thread.start()
    thread.join()
    assert "global_seed_generator" not in elsewhere[0][0]


def test_eager_draws_ask_one_function_for_their_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    """With seeds that are given there, TensorFlow's own generator of seeds is not moved on."""
    tf.random.set_seed(3)
    expected = tf.random.uniform((2,)).numpy()
    tf.random.set_seed(3)
    with monkeypatch.context() as patch:
        patch.setattr(*internals.seeds_of_draws(), lambda _seed: (77, 78))
        assert not np.array_equal(tf.random.uniform((2,)), expected)
    np.testing.assert_array_equal(tf.random.uniform((2,)), expected)


def test_kinds() -> None:
    """What TensorFlow makes of functions, variables and datasets is of these very classes."""
    assert type(tf.function(lambda: None)) is internals.TF_FUNCTION_KIND
    assert type(tf.Variable(1.0)) is internals.VARIABLE_KIND
    assert type(iter(tf.data.Dataset.range(1))) is internals.ITERATOR_KIND


def test_a_function_traced_anew_has_no_traces() -> None:
    """It is the same Python function with the same options, and the original is not traced."""
    function = tf.function(lambda x: x + 1, reduce_retracing=True)
    anew = internals.traced_anew(function)
    assert anew.python_function is function.python_function
    assert float(anew(tf.constant(1.0))) == 2.0
    assert (anew.experimental_get_tracing_count(), function.experimental_get_tracing_count()) == (
        1,
        0,
    )


def test_tapes_are_told_of_gradients_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What replaces it is called with these arguments, by position or by name."""
    module, name = internals.telling_of_tapes()
    original, told = getattr(module, name), []

    def telling(
        op_type: Any, output_tensors: Any, input_tensors: Any, backward_function: Any, **more: Any
    ) -> Any:
        told.append(backward_function)
        return original(op_type, output_tensors, input_tensors, backward_function, **more)

    @tf.custom_gradient
    def doubled(x: tf.Tensor) -> Any:
        return 2 * x, lambda upstream: 2 * upstream

    with monkeypatch.context() as patch:
        patch.setattr(module, name, telling)
        tf.function(lambda x: _gradient(doubled, x))(tf.constant(1.0))
    assert told
    assert all(map(callable, told))


def _gradient(function: Any, x: tf.Tensor) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = function(x)
    return tape.gradient(y, x)


# -- the only place --------------------------------------------------------------------------


def test_private_names_are_used_in_one_file_only() -> None:
    """Outside of `internals.py` nothing is imported from TensorFlow's or Keras's insides."""
    package = Path(tfcheck.__file__).parent
    for file in sorted(package.rglob("*.py")):
        if file.name == "internals.py":
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            for module in modules:
                assert not module.startswith(("tensorflow.python", "keras.src")), file.name
