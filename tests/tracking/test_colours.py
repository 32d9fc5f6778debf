"""The colours of runs."""

from __future__ import annotations

import pytest
from contrast import DARK, WHITE, contrast

from tfcheck.tracking.colours import RUN_COLOURS

COLOURS = [colour for shades in RUN_COLOURS.values() for colour in shades]


@pytest.mark.parametrize("ground", [WHITE, DARK])
def test_runs_can_be_seen_on_any_page(ground: str) -> None:
    """Lines have the contrast that WCAG 2.2 asks of graphics, on light and dark pages."""
    assert min(contrast(colour, ground) for colour in COLOURS) >= 3


def test_no_two_verdicts_share_a_colour() -> None:
    """Every shade is there once."""
    assert len(set(COLOURS)) == len(COLOURS) == 6 * len(RUN_COLOURS)
