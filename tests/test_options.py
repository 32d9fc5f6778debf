"""Options that can only be a mistake are refused with a sentence, before any work."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from tfcheck import Thresholds, Verdict, check_gradients, check_layer
from tfcheck.callbacks import GradientCheck
from tfcheck.errors import ArgumentError, ArgumentTypeError
from tfcheck.settings import make_settings

ABSURD: list[tuple[str, Any]] = [
    ("directions", 10**9),
    ("directions", 1001),
    ("directions", 0),
    ("directions", 2.0),
    ("directions", math.nan),
    ("directions", True),
    ("directions", 10**5000),
    ("epsilon", 1e300),
    ("epsilon", 1.5),
    ("epsilon", 1e-300),
    ("epsilon", 1e-16),
    ("epsilon", 5e-324),
    ("epsilon", 0),
    ("epsilon", -1e-7),
    ("epsilon", math.nan),
    ("epsilon", math.inf),
    ("epsilon", 1j),
    ("epsilon", np.complex128(1e-7)),
    ("epsilon", "1e-7"),
    ("epsilon", 10**5000),
    ("seed", -1),
    ("seed", 2**32),
    ("seed", 10**5000),
    ("precision", 0.0),
    ("precision", math.nan),
    ("precision", 1e300),
    ("dropout", "on"),
    ("dropout", 0.5),
    ("dropout", None),
    ("memory_limit", 1),
    ("memory_limit", "999 kB"),
    ("expected_mismatch", itertools.repeat("dense/*")),
    ("expected_mismatch", ["dense/*"] * 10**6),
    ("expected_mismatch", [b"dense/*"]),
    ("expected_mismatch", 5),
    ("expected_mismatch", None),
]


@pytest.mark.parametrize(("name", "value"), ABSURD, ids=[name for name, _ in ABSURD])
def test_absurd_options(name: str, value: Any) -> None:
    """Every public way to a check refuses it in one sentence, before it looks at the model."""
    for check in (check_gradients, check_layer, GradientCheck):
        with pytest.raises((ArgumentError, ArgumentTypeError)) as caught:
            check(None, np.ones((2, 1)), **{name: value})
        said = str(caught.value)
        assert said.startswith((f"{name} must be ", f"{name} must hold "))
        assert "Received: " in said
        assert len(said) < 500


@pytest.mark.parametrize(
    "bands",
    [
        (math.nan, 1e-5, 1e-3),
        (1e-7, math.nan, 1e-3),
        (1e-7, 1e-5, math.nan),
        (1e-3, 1e-5, 1e-7),
        (0, 1e-5, 1e-3),
        (1e-7, 1e-5, math.inf),
        ("1e-7", 1e-5, 1e-3),
        (None, 1e-5, 1e-3),
    ],
)
def test_thresholds_out_of_order(bands: tuple[Any, Any, Any]) -> None:
    """Bands that are no rising numbers are refused where they are made."""
    with pytest.raises(ArgumentError, match=r"^Thresholds must satisfy 0 < great"):
        Thresholds(*bands)


def test_the_bounds_themselves() -> None:
    """What lies just within the bounds is taken, whatever kind of number it is."""
    least = given(directions=1, epsilon=1e-15, seed=0, memory_limit=10**6)
    assert (least.directions, least.epsilon, least.seed, least.memory_limit) == (1, 1e-15, 0, 10**6)
    most = given(directions=np.int64(1000), epsilon=1, seed=2**32 - 1, memory_limit="1TB")
    assert (most.directions, most.epsilon, most.seed) == (1000, 1.0, 2**32 - 1)
    assert given(epsilon=np.float32(1e-6)).epsilon == pytest.approx(1e-6)
    assert given(expected_mismatch=(f"layer_{i}" for i in range(1000))).expected_mismatch[-1]
    assert given(expected_mismatch="gate/*").expected_mismatch == ("gate/*",)


@pytest.mark.parametrize("method", ["directions", "full"])
def test_a_step_that_large_weights_do_not_feel(method: str) -> None:
    """The smallest step is lost in weights of a thousand: no failure comes of that."""
    import keras

    layer = keras.layers.Dense(2, kernel_initializer=keras.initializers.Constant(1000.0))
    report = check_layer(layer, np.ones((2, 3)), method=method, epsilon=1e-15)
    assert report.count(Verdict.FAIL) == report.count(Verdict.SUSPECT) == 0


def given(**options: Any) -> Any:
    """The settings with these options."""
    plain: dict[str, Any] = {
        "phase": "train",
        "method": "directions",
        "directions": 4,
        "epsilon": "auto",
        "thresholds": Thresholds(),
        "expected_mismatch": (),
        "seed": 0,
    }
    return make_settings(**{**plain, **options})
