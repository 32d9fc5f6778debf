"""JAX: the MLP as a compiled function of its weights, and `jax.test_util.check_grads`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tfcheck.scripts.bench import arrays
from tfcheck.scripts.bench.processes import Answer
from tfcheck.scripts.bench.timing import timed

if TYPE_CHECKING:
    from jax import Array


def check_grads(sizes: dict[str, Any], repeats: int, seconds: float) -> Answer:
    """Seconds of `check_grads` along a random direction of all weights, in reverse mode."""
    from jax.test_util import check_grads as check

    loss, weights = _loss(sizes)
    timing = timed(
        lambda: check(loss, weights, order=1, modes=("rev",)), repeats=repeats, seconds=seconds
    )
    return {
        **timing.answer(),
        "parameters": sum(int(weight.size) for weight in weights),
        "note": "passes",
    }


def loss_and_slope(sizes: dict[str, Any]) -> Answer:
    """The loss and the length of its gradient, to be compared with the other frameworks'."""
    import jax

    loss, weights = _loss(sizes)
    value, parts = jax.value_and_grad(loss, argnums=tuple(range(len(weights))))(*weights)
    slope = sum(float((part**2).sum()) for part in parts) ** 0.5
    return {"loss": float(value), "slope": slope}


def _loss(sizes: dict[str, Any]) -> tuple[Callable[..., Array], tuple[Array, ...]]:
    """The MLP's loss as a function of the weights, and the weights."""
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    numbers = arrays.mlp(**sizes)
    assert numbers.weights is not None
    x, y = jnp.asarray(numbers.x), jnp.asarray(numbers.y)

    @jax.jit
    def loss(*weights: Array) -> Array:
        *hidden, last = zip(weights[::2], weights[1::2], strict=True)
        value = x
        for kernel, bias in hidden:
            value = jnp.tanh(value @ kernel + bias)
        scores = jax.nn.log_softmax(value @ last[0] + last[1])
        return -jnp.take_along_axis(scores, y[:, None], axis=1).mean()

    return loss, tuple(jnp.asarray(weight) for weight in numbers.weights)
