"""The gradient of reader/gate, which tfcheck found wrong at start (step 0).

This test fails until the backward pass is the derivative of the forward pass, on what it was given
then: gate_inputs.npz. Written by tfcheck 0.1.0.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tfcheck

HERE = Path(__file__).resolve().parent
from tfcheck.scripts.example_models import ChannelGate  # noqa: E402

CUSTOM_OBJECTS = {"ChannelGate": ChannelGate}
LAYER = {
    "module": "tfcheck.scripts.example_models",
    "class_name": "ChannelGate",
    "config": {
        "detached": True,
        "trainable": True,
        "dtype": {
            "module": "keras",
            "class_name": "DTypePolicy",
            "config": {"name": "float32"},
            "registered_name": None,
        },
    },
    "registered_name": "ChannelGate",
    "build_config": {"input_shape": [None, 6, 6, 8]},
}


def test_gradient_of_gate():
    """The backward pass is the derivative of the forward pass."""
    saved = np.load(HERE / "gate_inputs.npz")
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
