"""Numbers and names in words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfcheck.rendering import words


@given(st.floats(min_value=1e-300, max_value=1e300), st.booleans(), st.integers(1, 6))
def test_numbers_say_their_value(value: float, negative: bool, places: int) -> None:
    """A number as shown is the value to the digits shown."""
    value = -value if negative else value
    assert float(words.number(value, places)) == pytest.approx(value, rel=5 * 10.0**-places)
    assert float(words.scientific(value, places)) == pytest.approx(value, rel=10.0**-places)


@given(st.floats(min_value=1e-12, max_value=1))
def test_thresholds_are_shown_exactly_enough(value: float) -> None:
    """A threshold as shown is the threshold to six digits, and never padded."""
    assert float(words.limit(value)) == pytest.approx(value, rel=1e-6)
    assert not re.search(r"\.\d*0e|\.e|e[-+]0\d", words.limit(value))


@given(st.text() | st.text(alphabet="ab/", min_size=9), st.integers(8, 60))
def test_shortening_keeps_the_end(path: str, width: int) -> None:
    """A shortened path fits, and what is left of it is the end of the path."""
    short = words.shortened(path, width)
    assert len(short) <= max(width, 1)
    assert path.endswith(short.removeprefix("…") if short != path else path)
