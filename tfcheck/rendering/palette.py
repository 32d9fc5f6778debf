"""The colours that pages and pictures share.

Fill and ink of each kind of finding. Red and green also differ in lightness, for those who cannot
tell them apart by hue; symbols say the same again.
"""

from __future__ import annotations

COLOURS = {
    "pass": ("#5fb79b", "#06281f"),
    "great": ("#5fb79b", "#06281f"),
    "okay": ("#c3e5d7", "#06281f"),
    "suspect": ("#f4ad42", "#3a2200"),
    "fail": ("#b3202c", "#ffffff"),
    "inconclusive": ("#c5cad1", "#30363f"),
    "declared": ("#d9cff2", "#3d2a78"),
    "error": ("#5b6470", "#ffffff"),
    "absent": ("#f5f6f8", "#8a929d"),
}

INK = "#7a7d82"
"""Of text in pictures, which have no ground of their own: it reads on white and on dark pages."""

ON_WHITE, MUTED_ON_WHITE = "#1c2128", "#5b6470"
"""Of lines and text in figures, which have white ground."""

GHOST = (0.5, 0.5, 0.5, 0.14)
"""Of cells with nothing in them, on any ground: red, green, blue, opacity."""
