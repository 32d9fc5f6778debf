"""Right models with loops, maps, functions in functions, and gradients through them."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from formula import Formula
from right import Case, around, dense, tricky, vectors, wired

L = keras.layers


@tricky
def recomputed_blocks(rng: np.random.Generator) -> Case:
    """Activations thrown away and computed again for the gradient, weights included."""

    def wire(model: Any, x: Any, _training: bool) -> Any:
        return model.head(tf.recompute_grad(model.block)(x))

    x, y = vectors(rng)
    block = keras.Sequential([keras.Input((3,)), dense(), dense(3)], name="block")
    return Case(wired(wire, x, block=block, head=L.Dense(2)), x, y)


@tricky
def equilibrium_by_the_implicit_theorem(rng: np.random.Generator) -> Case:
    """A fixed point found by a loop, with the gradient of the implicit function theorem."""

    @tf.custom_gradient
    def settle(x: Any, w: Any) -> Any:
        z = tf.zeros_like(x)
        for _ in range(60):
            z = tf.tanh(z @ w + x)

        def backward(g: Any) -> Any:
            bend = 1 - z**2
            solved = g
            for _ in range(60):
                solved = g + (solved * bend) @ tf.transpose(w)
            return solved * bend, tf.transpose(z) @ (solved * bend)

        return z, backward

    start = keras.initializers.RandomNormal(stddev=0.15)
    layer = Formula(settle, {"w": (4, 4)}, start, name="settle")
    return Case(around(layer), *vectors(rng))


@tricky
def functions_within_functions(rng: np.random.Generator) -> Case:
    """A tf.function inside the call, and one more in that, traced long before."""

    @tf.function
    def inner(x: Any) -> Any:
        return tf.sin(x) * x

    @tf.function(reduce_retracing=True)
    def outer(x: Any, w: Any) -> Any:
        return inner(x @ w) + inner(x)

    model = around(Formula(outer, {"w": (4, 4)}, name="traced"))
    x, y = vectors(rng)
    model.train_on_batch(x, y)
    return Case(model, x, y)


@tricky
def loops_with_a_length_from_the_data(rng: np.random.Generator) -> Case:
    """Autograph turns a while and an if on values into graph loops of unknown length."""

    @tf.function
    def grow(x: Any) -> Any:
        count = 0
        while tf.reduce_sum(x**2) < 500.0:
            x = x * 1.5 + tf.sin(x)
            if count > 2:
                x = x + 0.1
            count += 1
        return x / 10.0

    return Case(around(L.Lambda(grow)), *vectors(rng))


@tricky
def euler_steps_of_an_ode(rng: np.random.Generator) -> Case:
    """A neural ODE: the same layer forty times in a tf.while_loop."""

    def flow(x: Any, w: Any) -> Any:
        return tf.while_loop(
            lambda i, _h: i < 40,
            lambda i, h: (i + 1, h + 0.05 * tf.tanh(h @ w)),
            (tf.constant(0), x),
            maximum_iterations=50,
        )[1]

    return Case(around(Formula(flow, {"w": (4, 4)}, name="flow")), *vectors(rng))


@tricky
def mapped_and_scanned(rng: np.random.Generator) -> Case:
    """scan, map_fn, vectorized_map and foldl over samples and steps."""

    def through(x: Any, w: Any) -> Any:
        summed = tf.scan(lambda a, row: 0.5 * a + tf.tanh(row), x)
        mapped = tf.map_fn(lambda row: tf.linalg.matvec(w, row), summed)
        squared = tf.vectorized_map(lambda row: row * tf.reduce_sum(w * row), mapped)
        return squared + tf.foldl(lambda a, row: tf.sin(a) + row, x)

    return Case(around(Formula(through, {"w": (4, 4)}, name="mapped")), *vectors(rng))


@tricky
def python_in_the_middle(rng: np.random.Generator) -> Case:
    """tf.py_function, which the tape follows into eager code."""
    sine = L.Lambda(lambda x: tf.ensure_shape(tf.py_function(tf.sin, [x], x.dtype), x.shape))
    return Case(around(sine), *vectors(rng))
