"""Right models of linear algebra, signals, and entries scattered in tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from formula import Formula
from right import Case, around, tricky, vectors


@tricky
def decompositions(rng: np.random.Generator) -> Case:
    """Cholesky, solve, inverse, log determinant and eigenvalues of one positive matrix."""

    def decomposed(x: Any, a: Any) -> Any:
        positive = a @ tf.transpose(a) + 3 * tf.eye(4) + tf.linalg.diag(tf.range(4.0))
        root = tf.linalg.cholesky(positive)
        x = tf.transpose(tf.linalg.triangular_solve(root, tf.transpose(x)))
        x = x @ tf.linalg.inv(positive) + tf.transpose(tf.linalg.solve(positive, tf.transpose(x)))
        return x * tf.linalg.logdet(positive) + tf.linalg.eigvalsh(positive)

    return Case(around(Formula(decomposed, {"a": (4, 4)}, name="matrix")), *vectors(rng))


@tricky
def functions_of_matrices(rng: np.random.Generator) -> Case:
    """The exponential, determinant, QR and singular values of a square matrix."""

    def functions(x: Any, a: Any) -> Any:
        a = a + 2 * tf.linalg.diag(tf.range(1.0, 5.0))
        q, r = tf.linalg.qr(a)
        x = x @ tf.linalg.expm(0.1 * a) + x @ q + tf.linalg.diag_part(r)
        return x + tf.linalg.svd(a, compute_uv=False) + 0.01 * tf.linalg.det(a)

    return Case(around(Formula(functions, {"a": (4, 4)}, name="matrix")), *vectors(rng))


@tricky
def fourier_layer(rng: np.random.Generator) -> Case:
    """A Fourier neural operator: complex weights from two real ones, a real signal back."""

    def mix(x: Any, re: Any, im: Any) -> Any:
        spectrum = tf.signal.rfft(x)
        weights = tf.complex(re, im)
        return tf.signal.irfft(spectrum * weights, [8]) + tf.abs(tf.signal.fft(tf.complex(x, x)))

    layer = Formula(mix, {"re": (5,), "im": (5,)}, name="fourier")
    return Case(around(layer, width=8), *vectors(rng))


@tricky
def scattered_updates(rng: np.random.Generator) -> Case:
    """tensor_scatter_nd_update, add and max, boolean_mask and dynamic_stitch."""

    def scattered(x: Any, w: Any) -> Any:
        x = tf.tensor_scatter_nd_update(x, [[0], [2]], w)
        x = tf.tensor_scatter_nd_add(x, [[1], [1]], w)
        kept = tf.boolean_mask(x, [True, False, True, True, True, False])
        x = tf.dynamic_stitch([[0, 2, 4, 5], [1, 3]], [kept, 2 * w])
        return tf.tensor_scatter_nd_max(x, [[3], [5]], w)

    return Case(around(Formula(scattered, {"w": (2, 4)}, name="scattered")), *vectors(rng))


@tricky
def gaussian_process(rng: np.random.Generator) -> Case:
    """A marginal likelihood: a kernel matrix, its Cholesky root and log determinant."""

    def likelihood(x: Any, scale: Any) -> Any:
        square = tf.reduce_sum(((x[:, None] - x[None]) / (1 + scale**2)) ** 2, -1)
        root = tf.linalg.cholesky(tf.exp(-square / 2) + 0.1 * tf.eye(6))
        solved = tf.linalg.cholesky_solve(root, tf.reduce_sum(x, -1, keepdims=True))
        return solved + tf.reduce_sum(tf.math.log(tf.linalg.diag_part(root)))

    return Case(around(Formula(likelihood, {"scale": (4,)}, name="process")), *vectors(rng))


@tricky
def sparse_weights(rng: np.random.Generator) -> Case:
    """A kernel of which only some entries exist, and a softmax over sparse scores."""
    places = [[0, 0], [0, 3], [1, 1], [2, 2], [3, 0]]

    def product(x: Any, values: Any) -> Any:
        kernel = tf.sparse.SparseTensor(places, values, (4, 4))
        weights = tf.sparse.to_dense(tf.sparse.softmax(kernel))
        return tf.transpose(tf.sparse.sparse_dense_matmul(kernel, tf.transpose(x))) + x @ weights

    return Case(around(Formula(product, {"values": (5,)}, name="sparse")), *vectors(rng))


@tricky
def eigenvectors(rng: np.random.Generator) -> Case:
    """Projections onto eigenvectors, whose signs are free; a pseudo-inverse and a square root."""

    def project(x: Any, a: Any) -> Any:
        symmetric = a @ tf.transpose(a) + tf.linalg.diag(tf.range(0.0, 8.0, 2.0))
        _, vectors_of = tf.linalg.eigh(symmetric)
        x = (x @ vectors_of) ** 2
        wide = tf.concat([a, a[:1]], 0)
        return x + x @ tf.linalg.pinv(wide) @ wide + x @ tf.linalg.sqrtm(symmetric)

    return Case(around(Formula(project, {"a": (4, 4)}, name="matrix")), *vectors(rng))
