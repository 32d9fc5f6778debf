"""How well colours can be told apart, as WCAG 2.2 computes it."""

from __future__ import annotations

from matplotlib.colors import to_rgb

WHITE, DARK = "#ffffff", "#11171c"
"""The grounds of MLflow's light and dark pages."""


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, from 1 to 21."""
    dark, light = sorted(map(_luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in to_rgb(colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
