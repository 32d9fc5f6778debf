"""How a model in an HDF5 file was compiled.

Keras 3 restores that only in part: it does not know the short names of its own losses (`"mse"`)
there, nor some words of Keras 2.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_OF_KERAS_2 = ("decay", "is_legacy_optimizer", "jit_compile")
"""Arguments of optimizers that no longer are, and of which no gradient depends."""


def training_config(path: Path) -> dict[str, Any] | None:
    """What the file says of it; None for a model that was not compiled."""
    import h5py

    with h5py.File(path, "r") as file:
        text = file.attrs.get("training_config")
    return None if text is None else dict(json.loads(text))


def compile_arguments(config: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `model.compile`, but for metrics, which no gradient depends on.

    Raises:
        ValueError: for a loss or an optimizer that Keras does not know.
    """
    import keras

    optimizer = dict(config["optimizer_config"])
    options = optimizer.get("config", {})
    optimizer["config"] = {k: v for k, v in options.items() if k not in _OF_KERAS_2}
    return {
        "optimizer": keras.optimizers.deserialize(optimizer),
        "loss": _loss(config["loss"]),
        "loss_weights": config.get("loss_weights"),
    }


def _loss(config: Any) -> Any:
    import keras

    if isinstance(config, str):
        return _named_loss(config)
    if isinstance(config, list):
        return [_loss(part) for part in config]
    if not isinstance(config, dict):
        return config
    if "class_name" not in config:
        return {name: _loss(part) for name, part in config.items()}
    options = dict(config["config"])
    if options.get("reduction") == "auto":  # Keras 2's word for what `fit` does
        options["reduction"] = "sum_over_batch_size"
    return keras.losses.deserialize({**config, "config": options})


def _named_loss(name: str) -> Any:
    import keras

    registered = keras.saving.get_registered_object(name)
    if registered is not None:
        return registered
    try:
        return keras.losses.get(name)
    except ValueError as error:
        raise ValueError(f"Could not locate function {name!r}") from error
