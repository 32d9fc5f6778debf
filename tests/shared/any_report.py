"""Any report there can be, for Hypothesis: texts, numbers and options of all kinds."""

from __future__ import annotations

from hypothesis import strategies as st

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Thresholds, Verdict
from tfcheck.report.chain import Link
from tfcheck.report.curves import Curves, Differences
from tfcheck.report.rows import Coordinate, LayerReport, ObjectiveSummary, VariableReport
from tfcheck.settings import Settings

NUMBERS = st.floats()  # nan and both infinities among them
SIZES = st.lists(st.integers(0, 1000), max_size=4).map(tuple)
NAMES = st.lists(st.text(max_size=8), max_size=3).map(tuple)
VERDICTS = st.sampled_from(Verdict)
COORDINATES = st.builds(Coordinate, SIZES, NUMBERS, NUMBERS, NUMBERS)
SERIES = st.lists(NUMBERS, max_size=3).map(tuple)
CURVES = st.builds(
    Curves,
    direction=st.text(max_size=5),
    precision=st.text(max_size=5),
    places=SERIES | st.just((-0.5, 0.0, 0.5)),
    losses=st.tuples(NUMBERS, NUMBERS, NUMBERS),
    tape=NUMBERS,
    right=NUMBERS,
    right_bar=NUMBERS,
    step=NUMBERS,
    differences=st.lists(
        st.builds(Differences, st.text(max_size=5), SERIES, SERIES), max_size=2
    ).map(tuple),
)
VARIABLES = st.builds(
    VariableReport,
    path=st.text(),
    layer=st.text(),
    shape=SIZES,
    score=NUMBERS,
    verdict=VERDICTS,
    reason=st.sampled_from(["", *Reason]) | st.text(max_size=5),
    analytic_norm=NUMBERS,
    numerical_norm=NUMBERS,
    error_bar=NUMBERS,
    worst=st.lists(COORDINATES, max_size=2).map(tuple),
    detectable_error=NUMBERS,
    note=st.text(),
    precision_error=NUMBERS,
    trained_norm=NUMBERS,
    compiled_distance=st.none() | NUMBERS,
    slopes=st.none() | st.tuples(NUMBERS, NUMBERS, NUMBERS),
    curves=st.none() | CURVES,
)
LAYERS = st.builds(
    LayerReport, st.text(), NUMBERS, VERDICTS, st.lists(VARIABLES, max_size=3).map(tuple)
)
THRESHOLDS = st.lists(
    st.floats(0, 1, exclude_min=True, allow_subnormal=False), min_size=3, max_size=3, unique=True
).map(lambda limits: Thresholds(*sorted(limits)))
REPORTS = st.builds(
    GradientReport,
    verdict=VERDICTS,
    score=NUMBERS,
    layers=st.lists(LAYERS, max_size=3).map(tuple),
    culprits=NAMES,
    chain=st.lists(st.builds(Link, st.text(max_size=5), st.booleans()), max_size=4).map(tuple),
    notes=NAMES,
    objective=st.builds(
        ObjectiveSummary,
        source=st.text(),
        phase=st.sampled_from(["train", "inference"]),
        losses=st.lists(NUMBERS, max_size=2).map(tuple),
        parity=NUMBERS,
        precision=st.text(),
        islands=NAMES,
        random_ops=NAMES,
        trained_precision=st.text(),
        trained_losses=st.lists(NUMBERS, max_size=2).map(tuple),
        compiled_losses=st.lists(NUMBERS, max_size=2).map(tuple),
        eager_losses=st.lists(NUMBERS, max_size=2).map(tuple),
    ),
    frozen=NAMES,
    settings=st.builds(
        Settings,
        epsilon=st.just("auto") | st.floats(1e-12, 1e-2),
        directions=st.integers(1, 99),
        thresholds=THRESHOLDS,
        expected_mismatch=NAMES,
        precision=st.floats(1e-9, 1.0),
        memory_limit=st.just("auto") | st.integers(1),
        time_limit=st.none() | st.floats(1e-3, 1e6),
        batch_size=st.none() | st.integers(1, 512),
        version=st.text(),
        batch_fingerprint=st.text(),
    ),
    step=st.none() | st.integers(0),
    checkpoint=st.text(),
    seconds=NUMBERS,
    evaluations=st.integers(0),
    error=st.text(),
    model=st.text(),
    epoch=st.none() | st.integers(0),
    name=st.text(),
)
