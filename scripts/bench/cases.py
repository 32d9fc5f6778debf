"""What is measured on: models and batches by name, and how much effort is spent on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

WRONG_LAYER = "wrong_backward"
"""The name of the layer whose backward pass is wrong, in models that have one."""


@dataclass(frozen=True)
class Case:
    """A model with a batch, as every process of the benchmark names it.

    Attributes:
        label: how tables name it.
        model: a function of `models.py`; those of the same name in `arrays.py` hold its numbers.
        sizes: the arguments of these functions, as JSON can hold them.
    """

    label: str
    model: str
    sizes: dict[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        """What a measuring function is given."""
        return {"model": self.model, "sizes": self.sizes}

    @property
    def wrong(self) -> bool:
        """Whether it has a layer whose backward pass is wrong."""
        return bool(self.sizes.get("wrong") or self.sizes.get("wrong_after"))


def mlp(*widths: int, batch: int = 32) -> Case:
    """A tanh MLP.

    Args:
        widths: inputs, hidden units of each layer, classes.
        batch: number of samples. Defaults to 32.
    """
    label = f"MLP {'-'.join(map(str, widths))}, batch {batch}"
    return Case(label, "mlp", {"widths": list(widths), "batch": batch})


def cnn(image: int, filters: Sequence[int], hidden: int, batch: int = 32) -> Case:
    """Two tanh convolutions with max pooling, and a dense layer, on square grey images.

    Args:
        image: pixels along a side.
        filters: of the two convolutions.
        hidden: units of the dense layer.
        batch: number of samples. Defaults to 32.
    """
    sizes = {"image": image, "filters": list(filters), "hidden": hidden, "batch": batch}
    return Case(f"CNN {image}×{image}, batch {batch}", "cnn", sizes)


def residual(layers: int, width: int = 32, batch: int = 32, *, wrong: bool = False) -> Case:
    """So many tanh layers, each added to what it is given, and an output layer.

    Args:
        layers: how many.
        width: units of each. Defaults to 32.
        batch: number of samples. Defaults to 32.
        wrong: whether the backward pass of a layer in the middle is wrong. Defaults to False.
    """
    sizes = {"layers": layers, "width": width, "batch": batch, "wrong": wrong}
    return Case(f"{layers} residual layers of {width}", "residual", sizes)


def transformer(blocks: int = 2, batch: int = 32) -> Case:
    """A small transformer encoder on token sequences."""
    sizes = {"blocks": blocks, "batch": batch}
    return Case(f"transformer encoder, batch {batch}", "transformer", sizes)


def application(name: str, image: int, batch: int = 2, *, wrong_after: str = "") -> Case:
    """A network of `keras.applications`, with random weights.

    Args:
        name: its function's.
        image: pixels along a side.
        batch: number of images. Defaults to 2.
        wrong_after: a layer behind which one with a wrong backward pass is put. Defaults to none.
    """
    sizes = {"name": name, "image": image, "batch": batch, "wrong_after": wrong_after}
    return Case(f"{name} {image}×{image}×3, batch {batch}", "application", sizes)


MLP = mlp(784, 128, 10)
CNN = cnn(28, (8, 16), 96)
RESNET50 = application("ResNet50", 64)
TINY_MLP = mlp(32, 8, 10)
TINY_CNN = cnn(12, (2, 4), 8)


@dataclass(frozen=True)
class Effort:
    """How much is spent on each measurement.

    Attributes:
        quick: smaller models, so that everything is tried and nothing is to be compared.
        repeats: timed repetitions, at most.
        seconds: no further repetition begins after so many seconds.
        processes: fresh processes for what happens once in a process.
        timeout: seconds until a process is stopped.
    """

    quick: bool
    repeats: int
    seconds: float
    processes: int
    timeout: float

    @property
    def mlp(self) -> Case:
        """The MLP that this project is compared on."""
        return TINY_MLP if self.quick else MLP

    @property
    def cnn(self) -> Case:
        """The small CNN that this project is compared on."""
        return TINY_CNN if self.quick else CNN

    @property
    def models(self) -> tuple[Case, ...]:
        """One of each kind."""
        if self.quick:
            return TINY_MLP, TINY_CNN
        return MLP, CNN, transformer(), RESNET50

    @property
    def repetition(self) -> dict[str, Any]:
        """The arguments of `timing.timed`."""
        return {"repeats": self.repeats, "seconds": self.seconds}


FULL = Effort(quick=False, repeats=9, seconds=40.0, processes=3, timeout=1800.0)
QUICK = Effort(quick=True, repeats=3, seconds=1.0, processes=1, timeout=120.0)
