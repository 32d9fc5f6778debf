"""The gradient of deep_reader/hidden_31, which tfcheck found wrong at start (step 0).

This test fails until the backward pass is the derivative of the forward pass, on what it was given
then: hidden_31_inputs.npz. Written by tfcheck 0.1.0.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tfcheck

HERE = Path(__file__).resolve().parent
from tfcheck.scripts.example_models import wrong_tanh  # noqa: E402

CUSTOM_OBJECTS = {"wrong_tanh": wrong_tanh}
LAYER = {
    "module": "keras.layers",
    "class_name": "Dense",
    "config": {
        "name": "hidden_31",
        "trainable": True,
        "dtype": {
            "module": "keras",
            "class_name": "DTypePolicy",
            "config": {"name": "float32"},
            "registered_name": None,
        },
        "units": 24,
        "activation": {
            "module": "tfcheck.scripts.example_models",
            "class_name": "function",
            "config": "wrong_tanh",
            "registered_name": "wrong_tanh",
        },
        "use_bias": True,
        "kernel_initializer": {
            "module": "keras.initializers",
            "class_name": "Orthogonal",
            "config": {"seed": None, "gain": 1.0},
            "registered_name": None,
        },
        "bias_initializer": {
            "module": "keras.initializers",
            "class_name": "Zeros",
            "config": {},
            "registered_name": None,
        },
        "kernel_regularizer": None,
        "bias_regularizer": None,
        "kernel_constraint": None,
        "bias_constraint": None,
        "quantization_config": None,
    },
    "registered_name": None,
    "build_config": {"input_shape": [None, 24]},
}


def test_gradient_of_hidden_31():
    """The backward pass is the derivative of the forward pass."""
    saved = np.load(HERE / "hidden_31_inputs.npz")
    layer = keras.saving.deserialize_keras_object(
        LAYER,
        custom_objects=CUSTOM_OBJECTS,
    )
    if len(layer.weights) < 2:
        layer(saved["input_0"])  # which builds the rest
    layer.set_weights([saved[f"weight_{i}"] for i in range(2)])
    report = tfcheck.check_layer(
        layer,
        saved["input_0"],
        seed=0,
    )
    assert report.verdict == "pass", f"\n{report}"
