"""float64 forms against the operations they stand for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfcheck.promote.float64_forms import float64_form

SIZES = st.integers(1, 9)


def _evaluate(op: str, attributes: dict[str, bool], *inputs: Any) -> Any:
    """Call an operation's float64 form as the promoted graph does."""
    node = tf.compat.v1.NodeDef(name="node", op=op)
    for name, value in attributes.items():
        node.attr[name].b = value
    form = float64_form(node)
    assert form is not None

    def body() -> tf.Tensor:
        library = tf.compat.v1.GraphDef()
        library.library.function.append(form)
        names = []
        for position, value in enumerate(inputs):
            constant = library.node.add(name=f"input{position}", op="Const")
            constant.attr["dtype"].type = tf.as_dtype(value.dtype).as_datatype_enum
            constant.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(value))
            names.append(constant.name)
        call = library.node.add(name="call", op="PartitionedCall", input=names)
        call.attr["f"].func.name = form.signature.name
        call.attr["Tin"].list.type.extend(a.type for a in form.signature.input_arg)
        call.attr["Tout"].list.type.extend(a.type for a in form.signature.output_arg)
        return tf.graph_util.import_graph_def(library, return_elements=["call:0"])[0]

    return tf.compat.v1.wrap_function(body, [])().numpy()


@pytest.mark.parametrize(
    ("align_corners", "half_pixel_centers"), [(False, False), (False, True), (True, False)]
)
@settings(max_examples=15)
@given(height=SIZES, width=SIZES, rows=SIZES, columns=SIZES, seed=st.integers(0, 99))
def test_bilinear_resizing(
    align_corners: bool,
    half_pixel_centers: bool,
    *,
    height: int,
    width: int,
    rows: int,
    columns: int,
    seed: int,
) -> None:
    """Forward and backward agree with TensorFlow's float32 kernels to float32 rounding."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(2, height, width, 3)).astype("float32")
    gradients = rng.normal(size=(2, rows, columns, 3)).astype("float32")
    modes = {"align_corners": align_corners, "half_pixel_centers": half_pixel_centers}

    size = np.array([rows, columns], "int32")
    forward = _evaluate("ResizeBilinear", modes, images.astype("float64"), size)
    expected = tf.raw_ops.ResizeBilinear(images=images, size=size, **modes)
    np.testing.assert_allclose(forward, expected, atol=2e-5)
    assert forward.dtype == np.float64

    backward = _evaluate(
        "ResizeBilinearGrad", modes, gradients.astype("float64"), images.astype("float64")
    )
    expected = tf.raw_ops.ResizeBilinearGrad(grads=gradients, original_image=images, **modes)
    np.testing.assert_allclose(backward, expected, atol=2e-5)


def test_other_operations_have_none() -> None:
    """An operation without a float64 form of ours is left to be an island."""
    assert float64_form(tf.compat.v1.NodeDef(name="n", op="MaxPool3D")) is None
