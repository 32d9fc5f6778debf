"""Outcomes as plain dictionaries, ready for strict JSON, and back."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

from tfcheck.judge.verdict import Thresholds, Verdict
from tfcheck.report.chain import Link
from tfcheck.report.curves import Curves, Differences
from tfcheck.report.rows import Coordinate, LayerReport, ObjectiveSummary, VariableReport
from tfcheck.settings import Settings

REPORT_SCHEMA = 1
"""Of what is written; a reader of another schema refuses it."""


def plain(value: Any) -> Any:
    """Dataclasses, tuples and floats to what strict JSON can hold."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Verdict):
        return str(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    kind: Any = type(value)
    names = _field_names(kind)
    return {name: plain(getattr(value, name)) for name in names} if names else value


@functools.cache
def _field_names(kind: type) -> tuple[str, ...]:
    """The fields of a kind of dataclass, looked up once: a training waits for a report's JSON."""
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    return tuple(f.name for f in fields if f.metadata.get("saved", True))


def _variable_from(content: dict[str, Any]) -> VariableReport:
    worst = tuple(
        Coordinate(
            tuple(item["index"]),
            float(item["analytic"]),
            float(item["numerical"]),
            float(item["error_bar"]),
        )
        for item in content["worst"]
    )
    numbers = ("score", "analytic_norm", "numerical_norm", "error_bar", "detectable_error")
    # Older reports lack the latter.
    later = ("precision_error", "trained_norm")
    compiled_distance, slopes = content.get("compiled_distance"), content.get("slopes")
    curves = content.get("curves")
    return VariableReport(
        **{
            **content,
            **{name: float(content[name]) for name in numbers},
            **{name: float(content[name]) for name in later if name in content},
            "compiled_distance": None if compiled_distance is None else float(compiled_distance),
            "slopes": None if slopes is None else tuple(map(float, slopes)),
            "curves": None if curves is None else _curves_from(curves),
            "shape": tuple(content["shape"]),
            "verdict": Verdict(content["verdict"]),
            "worst": worst,
        }
    )


def _curves_from(content: dict[str, Any]) -> Curves:
    numbers = ("tape", "right", "right_bar", "step")
    return Curves(
        **{
            **content,
            **{name: float(content[name]) for name in numbers},
            **{name: tuple(map(float, content[name])) for name in ("places", "losses")},
            "differences": tuple(
                Differences(
                    item["precision"],
                    tuple(map(float, item["steps"])),
                    tuple(map(float, item["slopes"])),
                )
                for item in content["differences"]
            ),
        }
    )


def _objective_from(content: dict[str, Any]) -> ObjectiveSummary:
    # Older reports lack these.
    later = ("trained_losses", "compiled_losses", "eager_losses")
    return ObjectiveSummary(
        **{
            **content,
            **{name: tuple(map(float, content.get(name, ()))) for name in later},
            "losses": tuple(map(float, content["losses"])),
            "parity": float(content["parity"]),
            "islands": tuple(content["islands"]),
            "random_ops": tuple(content["random_ops"]),
        }
    )


def _settings_from(content: dict[str, Any]) -> Settings:
    return Settings(
        **{
            **content,
            "thresholds": Thresholds(**content["thresholds"]),
            "expected_mismatch": tuple(content["expected_mismatch"]),
        }
    )


def fields_from(content: dict[str, Any]) -> dict[str, Any]:
    """The fields of an outcome, from `plain` ones."""
    layers = tuple(
        LayerReport(
            layer["path"],
            float(layer["score"]),
            Verdict(layer["verdict"]),
            tuple(_variable_from(variable) for variable in layer["variables"]),
        )
        for layer in content["layers"]
    )
    fields = {name: value for name, value in content.items() if name != "schema"}
    return {
        **fields,
        "verdict": Verdict(content["verdict"]),
        "score": float(content["score"]),
        "layers": layers,
        "culprits": tuple(content["culprits"]),
        "culprit_places": tuple(content.get("culprit_places", ())),
        "chain": tuple(Link(link["path"], link["corrupted"]) for link in content.get("chain", ())),
        "notes": tuple(content["notes"]),
        "frozen": tuple(content["frozen"]),
        "seconds": float(content["seconds"]),
        "objective": _objective_from(content["objective"]),
        "settings": _settings_from(content["settings"]),
    }
