"""The colours of runs in MLflow's tables and charts.

Each reads on MLflow's light and dark pages. A colour never tells a verdict alone: the verdict
stands beside the run's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tfcheck.judge.verdict import Verdict

# Several shades, so that neighbouring runs differ; a colour outside this list is the user's.
RUN_COLOURS = {
    Verdict.PASS: ("#297c30", "#009f6a", "#679f2e", "#238a7c", "#078531", "#868918"),
    Verdict.SUSPECT: ("#b15000", "#be7f00", "#e1712f", "#977811", "#9c6727", "#bc7305"),
    Verdict.FAIL: ("#cd2c2c", "#e25c94", "#f46134", "#e33862", "#b3574f", "#fa3051"),
    Verdict.INCONCLUSIVE: ("#56707c", "#808d9b", "#6197b3", "#777c84", "#637679", "#6f84ae"),
    Verdict.ERROR: ("#7e55c6", "#9e79dd", "#b179d8", "#7e6ecf", "#9d54b6", "#7a7ad8"),
}
_SHADES = 6


def shade_of(colour: str | None) -> int | None:
    """Which of our shades a run's colour is; None for none or a user's own."""
    for shades in RUN_COLOURS.values():
        if colour in shades:
            return shades.index(colour)
    return None


def free_shade(colours: Iterable[str | None]) -> int:
    """Which shade to use beside runs of these colours: the one they use least."""
    used = Counter(map(shade_of, colours))
    return min(range(_SHADES), key=lambda shade: used[shade])


def run_colour(verdict: Verdict, shade: int) -> str:
    """A colour for the run: green for pass, amber for suspect, red for fail."""
    return RUN_COLOURS[verdict][shade % _SHADES]
