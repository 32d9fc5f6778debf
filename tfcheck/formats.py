"""Floating-point formats: what each resolves, and how far two ways to compute in it may differ."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Format:
    """One floating-point format.

    Attributes:
        name: TensorFlow's name of it, such as `"bfloat16"`.
        bits: bits of the significand, the hidden one included.
        parity: how far the loss in it may be from that in float64, relative to the loss.
        rounding: how far two ways to round may move a gradient, as a similarity score.
        same: how far two ways to the same gradient in it may be apart, relative to the gradient.
        first_step: where to begin the search for a step where a loss is evaluated in it, relative
            to a variable's scale; None to go by the loss.
    """

    name: str
    bits: int
    parity: float
    rounding: float
    same: float
    first_step: float | None

    @property
    def unit(self) -> float:
        """Half the distance from 1 to the next number: the largest relative error of a rounding."""
        return 2.0**-self.bits


FLOAT64 = Format("float64", 53, 1e-9, 1e-9, 1e-6, None)
FLOAT32 = Format("float32", 24, 2.5e-4, 1e-4, 1e-3, 2.0**-7)
FLOAT16 = Format("float16", 11, 5e-2, 5e-2, 5e-2, 2.0**-3)
BFLOAT16 = Format("bfloat16", 8, 0.25, 0.25, 5e-2, 2.0**-3)
FLOAT8_E4M3FN = Format("float8_e4m3fn", 4, 0.25, 0.25, 0.25, 2.0**-3)
FLOAT8_E5M2 = Format("float8_e5m2", 3, 0.25, 0.25, 0.25, 2.0**-3)

FORMATS = {
    known.name: known for known in (FLOAT64, FLOAT32, FLOAT16, BFLOAT16, FLOAT8_E4M3FN, FLOAT8_E5M2)
}
"""All formats by name, the finest first."""
