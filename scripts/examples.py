"""What the example store tells: each training, and what a reader should know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras

from tfcheck.scripts.demo_models import Swish, swish
from tfcheck.scripts.example_commits import Commit
from tfcheck.scripts.example_gan import gan
from tfcheck.scripts.example_models import (
    ChannelGate,
    Clamp,
    deep,
    healthy,
    network,
    ready,
    small_loss_in_float16,
    wrong_swish,
)

READERS = "digit readers"
DEEP = "deep digit reader"
GAN = "digit GAN"


@dataclass(frozen=True, slots=True)
class Example:
    """One training.

    Attributes:
        experiment: its experiment in MLflow.
        name: the run's name.
        note: what a reader should know.
        model: makes the compiled model.
        checked: the epochs after which gradients are checked. Defaults to 1 and 3.
        labelled: whether it reads 8×8 pictures with labels. Defaults to True; else 64 pixels.
        commit: the commit that the code is from. Defaults to `""`, one of no importance.
    """

    experiment: str
    name: str
    note: str
    model: Callable[[], keras.Model]
    checked: tuple[int, ...] = (1, 3)
    labelled: bool = True
    commit: str = ""


def adversaries() -> list[Example]:
    """A GAN that trains, and one whose generator gets the gradients of the critic."""
    return [
        Example(
            GAN,
            "GAN, right",
            "Two networks, two optimizers, two tapes in a step: the gradients agree.",
            lambda: gan(mixed_up=False),
            labelled=False,
        ),
        Example(
            GAN,
            "GAN, wrong network",
            "The generator's optimizer is given the critic's gradients. Both networks have the "
            "same shapes, so nothing else complains. The tape is right, the step is not.",
            lambda: gan(mixed_up=True),
            labelled=False,
        ),
    ]


def deep_readers() -> list[Example]:
    """A deep reader with one wrong layer."""
    return [
        Example(
            DEEP,
            "60 layers, one wrong",
            "Layer 31 of 60 has an activation with a wrong derivative: the layers before it "
            "receive a wrong gradient, those behind it a right one.",
            lambda: ready(deep()),
        )
    ]


def readers() -> list[Example]:
    """Readers of digits: one that is right, and what may go wrong."""
    reader = partial(Example, READERS)
    return [
        reader(
            "healthy",
            "Layers that come with Keras: the gradients agree.",
            lambda: ready(healthy()),
        ),
        reader(
            "swish, wrong",
            "A swish activation with a hand-written backward pass that forgets a term.",
            lambda: ready(network(Swish(wrong_swish, shared=True, name="swish"))),
        ),
        reader(
            "swish, fixed",
            "The same network after the missing term was added.",
            lambda: ready(network(Swish(swish, shared=True, name="swish"))),
        ),
        reader(
            "gate, blocked",
            "A channel gate whose weights were detached with tf.stop_gradient, so it never learns.",
            lambda: ready(network(ChannelGate(True, name="gate"))),
        ),
        reader(
            "clamp, wrong later",
            "Clamped logits whose backward pass forgets the clamp. Nothing is wrong until a logit "
            "reaches it: checking once, before training, is not enough.",
            lambda: ready(network(end=Clamp(name="clamp"))),
            checked=(1, 2, 3),
        ),
        reader(
            "float16, underflow",
            "The healthy network under mixed_float16, with a loss of small weight that nothing "
            "scales. The gradients are right, so it passes; but float16 makes most of them 0, so "
            "the network hardly learns: the report names the layers under precision.",
            small_loss_in_float16,
        ),
    ]


def of_commit(commit: Commit) -> Example:
    """A reader with the layer of a commit.

    Args:
        commit: the state of the layer's file.
    """
    layer = commit.module.ScaledNorm
    return Example(
        READERS,
        f"commit {commit.hash[:7]}",
        f'A normalisation written by hand, at the commit "{commit.message}".',
        lambda: ready(network(layer(name="scaled_norm"))),
        commit=commit.hash,
    )
