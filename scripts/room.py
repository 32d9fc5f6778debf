"""How much memory a model's variables take, known before they take it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tfcheck.scripts.archives import require_size


@contextmanager
def variables_bounded(max_bytes: int) -> Iterator[None]:
    """Refuse Keras variables that all together would take more memory than the limit.

    A configuration of a few bytes can ask for any number of units. Every variable of Keras, of
    layers, optimizers and metrics alike, gives its shape to the constructor before anything is
    allocated, so that is where they are counted.

    Args:
        max_bytes: the limit.

    Raises:
        TooLargeError: for the first variable that is too much.
    """
    import keras

    make = keras.Variable.__init__
    signature = inspect.signature(make)
    total = 0

    def require_room() -> None:
        require_size(total, max_bytes, "the variables it declares")

    def counted(*args: Any, **options: Any) -> None:
        nonlocal total
        total += _size(signature.bind(*args, **options).arguments)
        require_room()
        make(*args, **options)

    keras.Variable.__init__ = counted
    try:
        yield
    except Exception:
        require_room()  # Keras may have made another error of it
        raise
    finally:
        keras.Variable.__init__ = make


def _size(arguments: Mapping[str, Any]) -> int:
    """Bytes of a variable; 0 for one that is made of a value, which is there already."""
    import keras
    import tensorflow as tf

    shape = arguments.get("shape")
    if shape is None:
        return 0
    axes = [shape] if isinstance(shape, int) else [axis or 0 for axis in shape]
    return (
        math.prod(axes) * tf.as_dtype(keras.backend.standardize_dtype(arguments.get("dtype"))).size
    )
