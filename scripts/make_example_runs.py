"""Make mlruns_example: real trainings of small models, some with a bug planted in them.

    python -m tfcheck.scripts.make_example_runs

The models read scikit-learn's handwritten digits. Each is trained with `GradientCheck`, and each
bug is one that people make. It takes a minute or two on two CPU cores.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before TensorFlow is imported: it reads this once.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import click
import keras
import numpy as np
import tensorflow as tf

from tfcheck.scripts.demo_models import (
    LEARNING_RATE,
    Swish,
    compile_reader,
    digits,
    summed_for,
    swish,
)

EXPERIMENT = "gradient check of digit readers"
EPOCHS = 4
BATCH_SIZE = 64


@tf.custom_gradient
def wrong_swish(x: tf.Tensor, beta: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    """`swish`; its derivative by x forgets the product rule's second term."""
    gate = tf.sigmoid(beta * x)

    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return upstream * gate, summed_for(beta, upstream * x * x * gate * (1 - gate))

    return x * gate, gradient


class ChannelGate(keras.layers.Layer):  # type: ignore[misc]
    """Squeeze and excite: every channel is weighted by what all of them say.

    Args:
        detached: plant the bug: the weights were detached from the graph to plot them, and the
            detached ones went on into the model. The gate never learns.
    """

    def __init__(self, detached: bool, **options: Any) -> None:
        super().__init__(**options)
        self.detached = detached

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights that turn channel averages into channel weights."""
        channels = input_shape[-1]
        self.kernel = self.add_weight(name="kernel", shape=(channels, channels))
        self.bias = self.add_weight(name="bias", shape=(channels,), initializer="zeros")

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Weight the channels."""
        squeezed = tf.reduce_mean(inputs, axis=(1, 2))
        weights = tf.sigmoid(tf.matmul(squeezed, self.kernel) + self.bias)
        if self.detached:
            weights = tf.stop_gradient(weights)
        return inputs * weights[:, None, None, :]


@tf.custom_gradient
def wrong_clamp(x: tf.Tensor) -> tuple[tf.Tensor, Callable[..., Any]]:
    """Values kept within ±6, with a backward pass that does not know the limits."""
    return tf.clip_by_value(x, -6.0, 6.0), lambda upstream: upstream


class Clamp(keras.layers.Layer):  # type: ignore[misc]
    """Right as long as no value reaches a limit, as at the start of training."""

    def call(self, inputs: tf.Tensor) -> tf.Tensor:
        """Apply the formula."""
        return wrong_clamp(inputs)


def network(*middle: keras.layers.Layer, end: keras.layers.Layer | None = None) -> keras.Model:
    """A convolutional reader of 8×8 digits.

    Args:
        middle: the layers after the convolution.
        end: a layer after the logits.
    """
    layers = keras.layers
    stack = [
        keras.Input((8, 8, 1)),
        layers.Conv2D(8, 3, name="conv"),
        *middle,
        layers.Flatten(name="flatten"),
        layers.Dense(24, activation="tanh", name="hidden"),
        # float32 also under mixed precision, as Keras recommends for the output.
        layers.Dense(10, name="logits", dtype="float32"),
    ]
    return keras.Sequential(stack if end is None else [*stack, end], name="reader")


def healthy() -> keras.Model:
    """Only layers that come with Keras."""
    return network(keras.layers.LayerNormalization(name="norm"), keras.layers.Activation("tanh"))


def mixed_precision() -> keras.Model:
    """The healthy network, computing in float16."""
    before = keras.mixed_precision.dtype_policy()
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        return healthy()
    finally:
        keras.mixed_precision.set_global_policy(before)


@dataclass(frozen=True, slots=True)
class Example:
    """One training: its name in MLflow, what a reader should know, and the model."""

    name: str
    note: str
    model: Callable[[], keras.Model]


EXAMPLES = (
    Example("healthy", "Layers that come with Keras: the gradients agree.", healthy),
    Example(
        "swish, wrong",
        "A swish activation with a hand-written backward pass that forgets a term.",
        lambda: network(Swish(wrong_swish, shared=True, name="swish")),
    ),
    Example(
        "swish, fixed",
        "The same network after the missing term was added.",
        lambda: network(Swish(swish, shared=True, name="swish")),
    ),
    Example(
        "gate, blocked",
        "A channel gate whose weights were detached with tf.stop_gradient, so it never learns.",
        lambda: network(ChannelGate(True, name="gate")),
    ),
    Example(
        "clamp, wrong later",
        "Clamped logits whose backward pass forgets the clamp. Nothing is wrong until a logit "
        "reaches it: checking once, before training, is not enough.",
        lambda: network(end=Clamp(name="clamp")),
    ),
    Example(
        "mixed precision",
        "The healthy network under the mixed_float16 policy.",
        mixed_precision,
    ),
)


class LossToMlflow(keras.callbacks.Callback):  # type: ignore[misc]
    """Loss and accuracy at the steps that the gradient checks use."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Log what Keras shows."""
        import mlflow

        mlflow.log_metrics(dict(logs or {}), step=int(self.model.optimizer.iterations))


def train(example: Example, x: np.ndarray, y: np.ndarray) -> None:
    """Train one example in an MLflow run of its own."""
    import mlflow

    from tfcheck.callbacks import GradientCheck

    keras.utils.set_random_seed(7)
    model = example.model()
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    if model.layers[0].compute_dtype == "float16":
        # Keras starts at 2¹⁵ and skips steps until that fits: the runs would get out of step.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**8)
    compile_reader(model, optimizer)
    # Its store is moved when training has ended: everything must have arrived.
    check = GradientCheck(x[:32], y[:32], epochs=range(1, EPOCHS + 1), close_timeout=60)
    with (
        mlflow.start_run(run_name=example.name, description=example.note),
        warnings.catch_warnings(action="ignore"),  # of the failures that are planted
    ):
        model.fit(
            x,
            y,
            batch_size=BATCH_SIZE,
            epochs=EPOCHS,
            verbose=0,
            callbacks=[check, LossToMlflow()],
        )


def shrink_pictures(store: Path) -> None:
    """Give every picture a palette: a third of the size for a repository, and no visible loss."""
    import PIL.Image

    for path in store.rglob("*.png"):
        with PIL.Image.open(path) as picture:
            few = picture.convert("RGB").quantize(96, method=PIL.Image.Quantize.MAXCOVERAGE)
        few.save(path, optimize=True)


@click.command()
@click.argument("destination", default="mlruns_example", type=click.Path(path_type=Path))
def main(destination: Path) -> None:
    """Train the examples and put their MLflow store into DESTINATION, replacing what is there."""
    import mlflow

    from tfcheck.scripts.relocation import make_relocatable

    if destination.exists() and not (
        any(destination.glob("*/meta.yaml")) or not any(destination.iterdir())
    ):
        raise click.ClickException(
            "The destination must be an MLflow file store, an empty folder or nothing yet. "
            f"Received: destination={str(destination)!r}. Name another one."
        )
    pixels, labels = digits()
    x = pixels.reshape(-1, 8, 8, 1)
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / destination.absolute().name
        mlflow.set_tracking_uri(store.as_uri())
        mlflow.set_experiment(EXPERIMENT)
        for example in EXAMPLES:
            click.echo(f"{example.name}: {example.note}")
            train(example, x, labels)
        shrink_pictures(store)
        make_relocatable(store)
        if destination.exists():
            shutil.rmtree(destination)
        shutil.copytree(store, destination)
    click.echo(f"Done. Look at it with: tfcheck ui {destination}")


if __name__ == "__main__":
    main()
