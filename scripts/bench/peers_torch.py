"""PyTorch: the same models as plain functions of their weights, and `torch.autograd.gradcheck`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tfcheck.scripts.bench import arrays
from tfcheck.scripts.bench.processes import Answer
from tfcheck.scripts.bench.timing import timed

if TYPE_CHECKING:
    from torch import Tensor


def gradcheck(
    model: str, sizes: dict[str, Any], fast: bool, repeats: int, seconds: float
) -> Answer:
    """Seconds of `gradcheck` with respect to all weights and biases, in float64.

    Args:
        model: see `cases.Case`.
        sizes: see `cases.Case`.
        fast: one random direction an input instead of every entry.
        repeats: later runs, at most; with 0 the first one counts.
        seconds: see `timing.timed`.
    """
    import torch

    loss, weights = _loss(model, sizes)
    loss(*weights)
    passed: list[bool] = []

    def check() -> None:
        passed.append(
            torch.autograd.gradcheck(loss, weights, fast_mode=fast, raise_exception=False)
        )

    answer = timed(check, repeats=repeats, seconds=seconds).answer()
    if not repeats:
        answer |= {"repeated": answer["first"], "runs": 1}
    return {
        **answer,
        "parameters": sum(weight.numel() for weight in weights),
        "note": "passes" if all(passed) else "fails",
    }


def loss_and_slope(model: str, sizes: dict[str, Any]) -> Answer:
    """The loss and the length of its gradient, to be compared with the other frameworks'."""
    import torch

    loss, weights = _loss(model, sizes)
    value = loss(*weights)
    parts = torch.autograd.grad(value, weights)
    slope = sum(float((part**2).sum()) for part in parts) ** 0.5
    return {"loss": float(value), "slope": slope}


def _loss(model: str, sizes: dict[str, Any]) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """The loss as a function of the weights, and the weights."""
    import torch

    numbers: arrays.Arrays = getattr(arrays, model)(**sizes)
    assert numbers.weights is not None
    x, y = numbers.x, torch.from_numpy(numbers.y)
    # Images and kernels have their channels elsewhere than in Keras.
    images = x.transpose(0, 3, 1, 2) if x.ndim == 4 else x
    kernels = (w.transpose(3, 2, 0, 1) if w.ndim == 4 else w for w in numbers.weights)
    weights = tuple(torch.tensor(kernel.copy(), requires_grad=True) for kernel in kernels)
    return partial(LOSSES[model], torch.from_numpy(images.copy()), y), weights


def _mlp(x: Tensor, y: Tensor, *weights: Tensor) -> Tensor:
    import torch

    *hidden, last = zip(weights[::2], weights[1::2], strict=True)
    for kernel, bias in hidden:
        x = torch.tanh(x @ kernel + bias)
    return torch.nn.functional.cross_entropy(x @ last[0] + last[1], y)


def _cnn(x: Tensor, y: Tensor, *weights: Tensor) -> Tensor:
    import torch
    from torch.nn.functional import conv2d, max_pool2d

    for kernel, bias in (weights[:2], weights[2:4]):
        x = max_pool2d(torch.tanh(conv2d(x, kernel, bias)), 2)
    return _mlp(x.permute(0, 2, 3, 1).flatten(1), y, *weights[4:])


LOSSES: dict[str, Callable[..., Tensor]] = {"mlp": _mlp, "cnn": _cnn}
