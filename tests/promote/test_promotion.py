"""Promotion: the same function without variables, in float64, and nothing of it executed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcheck.errors import TraceError
from tfcheck.internals import variable_spec
from tfcheck.promote.purify import PureGraph, purify

L = keras.layers
RNG = np.random.default_rng(17)
LOW = {tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum, tf.float32.as_datatype_enum}
STATEFUL = ("Variable", "Assign", "Resource", "VarHandle", "VarIs")


@dataclass(frozen=True)
class Pure:
    """A function made pure: the graph, and its values where the variables stand."""

    graph: PureGraph
    values: list[Any]


def nodes_of(graph_def: Any) -> Iterator[Any]:
    """All nodes of a graph and of its functions."""
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


def pure(function: Callable[..., Any], *arguments: Any, promote: bool = True) -> Pure:
    """Trace a function, purify its graph, and evaluate that by itself.

    Asserts that the graph is pure: it holds no operation on variables and no resource.
    """
    tensors = [tf.convert_to_tensor(argument) for argument in arguments]
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in tensors]
    traced = tf.function(function).get_concrete_function(*specs)
    captured = list(zip(traced.captured_inputs, traced.inputs[len(tensors) :], strict=True))
    variables = {
        placeholder.op.name: spec
        for outside, placeholder in captured
        if (spec := variable_spec(outside)) is not None
    }
    names = [tensor.name for tensor in tf.nest.flatten(traced.structured_outputs)]
    graph = purify(traced.graph.as_graph_def(), variables, names, promote=promote)
    for node in nodes_of(graph.graph_def):
        assert not node.op.startswith(STATEFUL), node.op
        assert not any(value.type == tf.resource.as_datatype_enum for value in node.attr.values())
        assert not any(name.startswith("^") for name in node.input)

    fed = dict(zip([t.op.name for t in traced.inputs], tensors, strict=False))
    for outside, placeholder in captured:
        name = placeholder.op.name
        fed[name] = (
            tf.raw_ops.ReadVariableOp(resource=outside, dtype=variables[name].dtype)
            if name in variables
            else outside
        )
    return Pure(graph, evaluate(graph, names, fed))


def evaluate(graph: PureGraph, names: Sequence[str], fed: dict[str, Any]) -> list[Any]:
    """The fetched values of a pure graph, in a session that knows nothing else."""
    with tf.Graph().as_default() as alone:
        wanted = [graph.tensors[name] for name in names]
        fetched = tf.graph_util.import_graph_def(graph.graph_def, return_elements=wanted, name="")
        present = {node.name for node in graph.graph_def.node}
        feeds = {
            f"{name}:0": np.asarray(value).astype(alone.get_tensor_by_name(f"{name}:0").dtype.name)
            for name, value in fed.items()
            if name in present
        }
        with tf.compat.v1.Session(graph=alone) as session:
            return list(session.run(fetched, feeds))


def low_types(graph: PureGraph) -> set[str]:
    """The operations of a pure graph that use a float type below float64."""
    return {
        node.op
        for node in nodes_of(graph.graph_def)
        for value in node.attr.values()
        if LOW.intersection([value.type, *value.list.type])
    }


# -- parity ----------------------------------------------------------------------------------


def slope_of(formula: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """The gradient of a formula's sum with respect to the variable."""

    def gradient(x: Any, w: Any) -> Any:
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(formula(x, w) ** 2)
        return tf.convert_to_tensor(tape.gradient(total, w))

    return gradient


def accumulated(x: Any, w: Any) -> Any:
    """A loop that writes into a TensorArray."""
    states = tf.TensorArray(x.dtype, size=4, element_shape=(3, 3))
    state = x
    for i in tf.range(4):
        state = tf.tanh(state @ w)
        states = states.write(i, state)
    return states.stack()


def looped(x: Any, w: Any) -> Any:
    """A while loop that depends on its data."""
    return tf.while_loop(
        lambda i, h: tf.logical_and(i < 5, tf.reduce_sum(h) < 100),
        lambda i, h: (i + 1, tf.tanh(h @ w) + tf.cast(i, h.dtype)),
        (tf.constant(0), x),
    )[1]


def branched(x: Any, w: Any) -> Any:
    """A branch that reads the variable on one side only, and one on the other."""
    first = tf.cond(tf.reduce_sum(x) > 0, lambda: x @ w, lambda: x)
    return tf.cond(tf.reduce_sum(x) < 0, lambda: x, lambda: first * w)


def switched(x: Any, w: Any) -> Any:
    """One of three branches."""
    index = tf.cast(tf.reduce_max(x) > 0, tf.int32) + 1
    return tf.switch_case(index, [lambda: x, lambda: w + 0, lambda: x - w])


@tf.custom_gradient
def clipped_backwards(x: Any) -> Any:
    """An identity that clips its gradient."""
    return tf.identity(x), lambda upstream: tf.clip_by_value(upstream, -1, 1)


@tf.function
def inner(x: Any, w: Any) -> Any:
    """A nested function that gets the variable as an argument."""
    return tf.nn.softmax(x @ w)


def convolved(x: Any, w: Any) -> Any:
    """A convolution with 3×3 values as its kernel."""
    image = tf.reshape(tf.tile(x, (2, 3)), (2, 3, 3, 3))[..., :1]
    return tf.nn.conv2d(image, tf.reshape(w, (3, 3, 1, 1)), 1, "SAME")


FORMULAS: dict[str, Callable[[Any, Any], Any]] = {
    "dense": lambda x, w: tf.tanh(x @ w) * 0.125,
    "gradient of a dense layer": slope_of(lambda x, w: tf.tanh(x @ w)),
    "convolution": convolved,
    "gradient of a convolution": slope_of(convolved),
    "branch": branched,
    "switch": switched,
    "while loop": looped,
    "gradient of a while loop": slope_of(looped),
    "tensor array": accumulated,
    "gradient of a tensor array": slope_of(accumulated),
    "map": lambda x, w: tf.map_fn(lambda row: tf.linalg.matvec(w, row), x),
    "gather": lambda x, w: tf.nn.embedding_lookup(w, [0, 2, 2]) * x,
    "gradient of a gather": slope_of(lambda x, w: tf.nn.embedding_lookup(w, [0, 2, 2]) * x),
    "gather_nd": lambda x, w: tf.gather_nd(w, [[0, 1], [2, 2]]) * x[0, 0],
    "custom gradient": slope_of(lambda x, w: clipped_backwards(x @ w)),
    "nested function": inner,
    "gradient of a nested function": slope_of(inner),
    "shape of the variable": lambda x, w: x * tf.cast(tf.shape(w)[0], x.dtype),
    "einsum": lambda x, w: tf.einsum("ij,kj->ik", x, w),
    "spectrum": lambda x, w: tf.math.real(tf.signal.ifft(tf.signal.fft(
        tf.cast(x @ w, tf.complex64 if x.dtype != tf.float64 else tf.complex128)
    ) * 2)),
    "cross entropy": lambda x, w: tf.nn.sparse_softmax_cross_entropy_with_logits([0, 2, 1], x @ w),
    "decomposition": lambda x, w: tf.linalg.cholesky(w @ tf.transpose(w) + x @ tf.transpose(x)),
    "gradient of a gradient": slope_of(slope_of(lambda x, w: tf.sin(x * w))),
}  # fmt: skip


def parity(formula: Callable[[Any, Any], Any], dtype: Any) -> None:
    """Assert that a formula traced in one precision and promoted is the formula in float64."""
    x = tf.cast(RNG.normal(size=(3, 3)), dtype)
    value = tf.cast(RNG.normal(size=(3, 3)), dtype)
    w = tf.Variable(value)
    found = pure(lambda x: formula(x, w), x)
    expected = formula(tf.cast(x, tf.float64), tf.Variable(tf.cast(value, tf.float64)))
    assert found.values[0].dtype == np.float64
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-11, atol=1e-13)
    assert found.graph.islands == ()
    assert low_types(found.graph) == set()


@pytest.mark.parametrize("name", FORMULAS)
def test_float32_becomes_float64(name: str) -> None:
    """Traced in float32 and promoted, a graph computes what float64 computes."""
    parity(FORMULAS[name], tf.float32)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16], ids=["float16", "bfloat16"])
@pytest.mark.parametrize(
    "name", ["dense", "gradient of a while loop", "gather", "nested function", "cross entropy"]
)
def test_half_precision_becomes_float64(name: str, dtype: Any) -> None:
    """So do the two half precisions, whose constants and casts go up as well."""
    parity(FORMULAS[name], dtype)


@pytest.mark.parametrize(("kind", "largest"), [("float8_e4m3fn", 448.0), ("float8_e5m2", 57344.0)])
def test_eight_bits_become_float64(kind: str, largest: float) -> None:
    """Neither the rounding nor the range of float8 is left; a narrower range is."""
    x = np.array([0.3, -3e5, 3e5], np.float32)

    def in_eight_bits(limit: float) -> Any:
        def quantised(x: Any) -> Any:
            return tf.cast(tf.cast(tf.clip_by_value(x, -limit, limit), kind), tf.float32)

        return pure(quantised, x).values[0]

    np.testing.assert_array_equal(in_eight_bits(largest), x.astype(np.float64))
    np.testing.assert_array_equal(in_eight_bits(2.0), np.clip(x.astype(np.float64), -2, 2))


def test_casts_to_float32_go_up() -> None:
    """A hard-coded cast to float32 rounds nothing after promotion."""
    w = tf.Variable(RNG.normal(size=(3, 3)).astype("float32"))
    x = RNG.normal(size=(3, 3)).astype("float32")
    found = pure(lambda x: tf.cast(tf.cast(x, tf.float16) @ tf.cast(w, tf.float16), "float32"), x)
    np.testing.assert_allclose(found.values[0], x.astype("float64") @ w.numpy(), rtol=1e-12)


@pytest.mark.parametrize("constant", [0.1, -0.3, 1e-3, 1 / 3, 3.0, 2**0.5])
def test_constants_in_half_precision(constant: float) -> None:
    """A constant rounded to half precision is restored to what was meant."""
    found = pure(lambda x: x * tf.constant(constant, tf.float16), np.float16(1))
    assert found.values[0] == constant


UNARY: dict[str, Callable[[Any], Any]] = {
    "tanh": tf.tanh,
    "exp": lambda x: tf.exp(-tf.abs(x)),
    "softplus": tf.nn.softplus,
    "softmax": tf.nn.softmax,
    "norm": lambda x: x / (1.0 + tf.norm(x)),
    "sort": lambda x: tf.sort(x, axis=0),
    "cumsum": lambda x: tf.cumsum(x) / 3.0,
    "where": lambda x: tf.where(x > 0, x, 0.25 * x),
    "transpose": tf.transpose,
    "variance": lambda x: x - tf.math.reduce_variance(x, 0),
}


@settings(max_examples=12)
@given(st.lists(st.sampled_from(sorted(UNARY)), min_size=1, max_size=4))
def test_compositions(names: list[str]) -> None:
    """Whatever operations follow each other, values and gradients are those of float64."""

    def formula(x: Any, w: Any) -> Any:
        value = x @ w
        for name in names:
            value = UNARY[name](value)
        return value

    parity(formula, tf.float32)
    parity(slope_of(formula), tf.float32)


LAYERS: dict[str, tuple[Callable[[str], keras.layers.Layer], tuple[int, ...]]] = {
    "Dense": (lambda dtype: L.Dense(4, activation="gelu", dtype=dtype), (3, 5)),
    "SeparableConv2D": (lambda dtype: L.SeparableConv2D(3, 2, dtype=dtype), (2, 5, 5, 2)),
    "BatchNormalization": (lambda dtype: L.BatchNormalization(epsilon=2**-10, dtype=dtype), (6, 3)),
    "LayerNormalization": (lambda dtype: L.LayerNormalization(epsilon=2**-10, dtype=dtype), (6, 3)),
    "LSTM": (lambda dtype: L.LSTM(3, return_sequences=True, dtype=dtype), (2, 4, 3)),
    "GRU": (lambda dtype: L.GRU(3, dtype=dtype), (2, 4, 3)),
    "Bidirectional": (
        lambda dtype: L.Bidirectional(L.SimpleRNN(2, dtype=dtype), dtype=dtype),
        (2, 4, 3),
    ),
    "MaxPooling2D": (lambda dtype: L.MaxPooling2D(dtype=dtype), (2, 4, 4, 2)),
    "GroupNormalization": (
        lambda dtype: L.GroupNormalization(2, epsilon=2**-10, dtype=dtype),
        (3, 4),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name: str) -> None:
    """A Keras layer while training, promoted, is that layer in float64."""
    make, shape = LAYERS[name]
    x = RNG.normal(size=shape).astype("float32")
    keras.utils.set_random_seed(2)
    low, high = make("float32"), make("float64")
    for layer in (low, high):
        layer.build(shape)
    for one, other in zip(low.weights, high.weights, strict=True):
        other.assign(np.asarray(one, np.float64))
    before = [np.asarray(weight) for weight in low.weights]
    found = pure(lambda x: low(x, training=True) if "Batch" in name else low(x), x)
    x = x.astype("float64")
    expected = high(x, training=True) if "Batch" in name else high(x)
    np.testing.assert_allclose(found.values[0], expected, rtol=1e-11, atol=1e-12)
    for weight, value in zip(low.weights, before, strict=True):
        np.testing.assert_array_equal(np.asarray(weight), value)


def test_without_promotion() -> None:
    """Made pure without promotion, a graph gives the very numbers of the training precision."""
    w = tf.Variable(RNG.normal(size=(3, 3)).astype("float32"))
    x = RNG.normal(size=(3, 3)).astype("float32")
    found = pure(lambda x: looped(x, w), x, promote=False)
    np.testing.assert_array_equal(found.values[0], tf.function(looped)(x, w))
    assert found.values[0].dtype == np.float32
    assert (found.graph.islands, found.graph.cuts) == ((), ())


def test_other_types_stay() -> None:
    """Integers, booleans and strings are none of promotion's business."""
    count = tf.Variable(3, dtype=tf.int64)
    flag = tf.Variable(True)
    found = pure(lambda x: (count + 1, tf.logical_not(flag), tf.constant("s"), x), np.float32(2))
    assert [np.asarray(value).dtype.kind for value in found.values] == ["i", "b", "S", "f"]
    assert found.values[0] == 4
    assert not found.values[1]


# -- islands and random numbers --------------------------------------------------------------


def test_an_operation_without_float64_is_an_island() -> None:
    """What has no float64 kernel keeps its precision between casts, and is named."""
    w = tf.Variable(RNG.normal(size=(1, 4, 4, 4, 1)).astype("float32"))

    def pooled(x: Any) -> Any:
        return tf.nn.max_pool3d(x * w, 2, 2, "VALID") * 3.0

    x = RNG.normal(size=(1, 4, 4, 4, 1)).astype("float32")
    found = pure(pooled, x)
    assert len(found.graph.islands) == 1
    assert found.graph.islands[0].startswith("MaxPool3D (")
    assert low_types(found.graph) <= {"MaxPool3D", "Cast"}
    assert found.values[0].dtype == np.float64
    np.testing.assert_allclose(found.values[0], pooled(x), rtol=1e-6)


def test_an_island_in_a_function_is_found() -> None:
    """An island within a loop's body is named, too."""
    w = tf.Variable(RNG.normal(size=(1, 4, 4, 4, 1)).astype("float32"))

    def body(i: Any, h: Any) -> Any:
        pooled = tf.nn.max_pool3d(h * w, 2, 2, "VALID")
        return i + 1, tf.tile(pooled, (1, 2, 2, 2, 1))

    x = np.abs(RNG.normal(size=(1, 4, 4, 4, 1))).astype("float32")

    def run(x: Any) -> Any:
        return tf.while_loop(lambda i, _h: i < 2, body, (0, x))[1]

    found = pure(run, x)
    assert [island.split()[0] for island in found.graph.islands] == ["MaxPool3D"]
    np.testing.assert_allclose(found.values[0], run(x), rtol=1e-6)


def test_random_operations_draw_the_same_numbers() -> None:
    """A stateless draw gives the numbers of its own precision, not another stream's."""
    found = pure(
        lambda x: x + tf.random.stateless_normal((3,), seed=(1, 2)), np.zeros(3, "float32")
    )
    expected = tf.random.stateless_normal((3,), seed=(1, 2))
    np.testing.assert_array_equal(found.values[0], np.asarray(expected, np.float64))
    assert found.graph.random_ops == ()


def test_raw_draws_are_named() -> None:
    """An operation that draws anew at each evaluation is named; its draw can be held fixed."""
    found = pure(lambda x: x * tf.random.normal((3,)), np.ones(3, "float32"))
    (named,) = found.graph.random_ops
    assert named.startswith("RandomStandardNormal (")
    assert len(found.graph.drawn) == 1


# -- variables -------------------------------------------------------------------------------


def test_reads_after_an_assignment_see_it() -> None:
    """Reads see what was assigned before them; the live variable sees nothing at all."""
    v = tf.Variable([3.0, 4.0])

    def step(x: Any) -> Any:
        before = v * x
        v.assign(10.0 * x)
        between = v * x
        v.assign_add([1.0, 1.0])
        v.assign_sub([0.0, 2.0])
        return before, between, v.read_value()

    found = pure(step, np.array([1.0, 2.0], "float32"))
    np.testing.assert_allclose(found.values[0], [3, 8])
    np.testing.assert_allclose(found.values[1], [10, 40])
    np.testing.assert_allclose(found.values[2], [11, 19])
    np.testing.assert_array_equal(v.numpy(), [3, 4])
    assert len(found.graph.cuts) == 3
    assert len({cut.variable for cut in found.graph.cuts}) == 1


def test_scattered_assignments() -> None:
    """Assignments to single rows and entries count for later reads, too."""
    v = tf.Variable(np.zeros((4, 2), "float32"))

    def step(x: Any) -> Any:
        v.scatter_add(tf.IndexedSlices(x, tf.constant([0, 2])))
        v.scatter_sub(tf.IndexedSlices(x, tf.constant([2, 3])))
        v.scatter_nd_update([[1, 1]], [9.0])
        v.scatter_update(tf.IndexedSlices(x[:1] * 5, tf.constant([3])))
        return v.read_value()

    x = np.array([[1.0, 2.0], [3.0, 4.0]], "float32")
    found = pure(step, x)
    np.testing.assert_allclose(found.values[0], [[1, 2], [0, 9], [2, 2], [5, 10]])
    assert not np.any(v.numpy())


def test_assignments_in_functions_and_loops() -> None:
    """What a nested function or a loop assigns is seen within it; nothing live changes."""
    v = tf.Variable(2.0)

    @tf.function
    def bump(x: Any) -> Any:
        v.assign_add(x)
        return v * 10.0

    found = pure(bump, np.float32(3))
    assert found.values[0] == 50
    assert v.numpy() == 2


def test_effects_are_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    """Printing, assertions and Python effects hang on control dependencies, and do not happen."""
    happened: list[int] = []
    v = tf.Variable(1.0)

    def step(x: Any) -> Any:
        tf.print("printed")
        tf.debugging.assert_less(x, 0.0)
        tf.py_function(lambda: happened.append(1), [], [])
        with tf.control_dependencies([v.assign(7.0)]):
            return x * 2.0

    found = pure(step, np.float32(3))
    assert found.values[0] == 6
    assert happened == []
    assert v.numpy() == 1
    assert "printed" not in "".join(capfd.readouterr())


def test_a_variable_as_a_branch_result() -> None:
    """Both branches may read and assign; what is read afterwards is the variable's own value."""
    v, w = tf.Variable(2.0), tf.Variable(5.0)

    def step(x: Any) -> Any:
        return tf.cond(x > 0, lambda: v * w, lambda: v - w) + v

    assert pure(step, np.float32(1)).values[0] == 12
    assert pure(step, np.float32(-1)).values[0] == -1


def test_only_what_is_needed_stays() -> None:
    """What the fetches do not depend on is pruned, variables included."""
    used, unused = tf.Variable(2.0), tf.Variable(5.0)

    def step(x: Any) -> Any:
        tf.identity(unused * x)
        return used * x

    found = pure(step, np.float32(3))
    placeholders = [n for n in found.graph.graph_def.node if n.op == "Placeholder"]
    assert len(placeholders) == 2
    assert found.values[0] == 6


def test_operations_that_cannot_be_pure_are_refused() -> None:
    """An operation that updates a variable in a way of its own is refused by name."""
    v = tf.Variable([1.0])

    def step(x: Any) -> Any:
        tf.raw_ops.ResourceApplyGradientDescent(var=v.handle, alpha=0.1, delta=x)
        return v * x

    with pytest.raises(TraceError, match=r"Received: op='ResourceApplyGradientDescent'"):
        pure(step, np.ones(1, "float32"))


def test_unknown_operations_are_refused() -> None:
    """An operation from a library that is not loaded is refused by name."""
    graph_def = tf.compat.v1.GraphDef()
    graph_def.node.add(name="strange", op="NoSuchOperation")
    with pytest.raises(TraceError, match="NoSuchOperation"):
        purify(graph_def, {}, ["strange:0"])
