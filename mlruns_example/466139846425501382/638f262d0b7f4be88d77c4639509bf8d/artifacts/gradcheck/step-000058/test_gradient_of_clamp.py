"""The gradient of reader/clamp, which tfcheck found wrong at epoch 2 (step 58).

This test fails until the backward pass is the derivative of the forward pass, on what it was given
then: clamp_inputs.npz. Written by tfcheck 0.1.0.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tfcheck

HERE = Path(__file__).resolve().parent
from tfcheck.scripts.example_models import Clamp  # noqa: E402

CUSTOM_OBJECTS = {"Clamp": Clamp}
LAYER = {
    "module": "tfcheck.scripts.example_models",
    "class_name": "Clamp",
    "config": {
        "name": "clamp",
        "activity_regularizer": None,
        "trainable": True,
        "dtype": {
            "module": "keras",
            "class_name": "DTypePolicy",
            "config": {"name": "float32"},
            "registered_name": None,
        },
        "autocast": True,
    },
    "registered_name": "Clamp",
    "build_config": {"input_shape": [None, 10]},
}


def test_gradient_of_clamp():
    """The backward pass is the derivative of the forward pass."""
    saved = np.load(HERE / "clamp_inputs.npz")
    layer = keras.saving.deserialize_keras_object(
        LAYER,
        custom_objects=CUSTOM_OBJECTS,
    )
    report = tfcheck.check_layer(
        layer,
        saved["input_0"],
        seed=0,
    )
    assert report.verdict == "pass", f"\n{report}"
