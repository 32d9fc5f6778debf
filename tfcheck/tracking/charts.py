"""The charts of a saved view, most telling first: failing layers, runs compared, the ten worst.

What has no chart here gets one from MLflow, in the section that has the metric's prefix for a
name. These sections are folded, so that a model of sixty layers is no longer to read than one of
six.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict
from tfcheck.tracking import metrics, over_checkpoints, schema

MOST_SECTIONS = 6
MOST_FAILING = 6
MOST_WORST = 10

_VERDICT = {"yMin": -0.2, "yMax": 3.2}
_DIGITS = {"yMin": 0, "yMax": 16}


@dataclass(frozen=True, slots=True)
class Shown:
    """What the charts of a view are about.

    Attributes:
        step: the checkpoint at which the heatmap's slider stands.
        sections: the callbacks that checked, as their names begin.
        failing: the verdict metrics of failing layers, culprits first.
        worst: the digits metrics that are lowest.
        good_run: id of the last run that passed, which others are compared with; `""` if none did.
    """

    step: int = 0
    sections: tuple[str, ...] = (schema.FIRST,)
    failing: tuple[str, ...] = ()
    worst: tuple[str, ...] = ()
    good_run: str = ""

    @classmethod
    def of(cls, saved: Mapping[str, Any]) -> Self:
        """From what `dataclasses.asdict` and JSON made of it.

        Raises:
            TypeError: if that is something else.
        """
        named = {name: tuple(saved[name]) for name in ("sections", "failing", "worst")}
        return cls(**{**saved, **named})

    def after(self, before: Shown) -> Shown:
        """This, with what other runs and callbacks of the experiment found before it."""
        return replace(
            self,
            sections=_union((schema.FIRST,), self.sections, before.sections)[:MOST_SECTIONS],
            failing=_union(self.failing, before.failing)[:MOST_FAILING],
        )


def shown(reports: Sequence[GradientReport], section: str, good_run: str) -> Shown:
    """What is worth showing of the checks of one callback."""
    judged = over_checkpoints.judged(reports)
    return Shown(
        step=over_checkpoints.step_of(reports[-1]),
        sections=_union((schema.FIRST,), (section,)),
        failing=_failing(judged, section)[:MOST_FAILING],
        worst=_worst(judged[-1], section)[:MOST_WORST] if judged else (),
        good_run=good_run,
    )


def _failing(reports: Sequence[GradientReport], section: str) -> tuple[str, ...]:
    """The verdict metrics of the layers that failed: culprits first, then the highest score."""
    guilty = over_checkpoints.culprits(reports)
    found: dict[str, str] = {}
    scores: dict[str, float] = {}
    for report in reports:
        levels = metrics.levels(report, guilty)
        for path, name in metrics.layer_names(levels).items():
            if levels[path] == metrics.LEVELS[Verdict.FAIL]:
                found.setdefault(path, f"{section}/verdict/{name}")
        for layer in report.layers:
            scores[layer.path] = max(layer.score, scores.get(layer.path, 0.0))
    ranked = sorted(found, key=lambda path: (path not in guilty, -scores.get(path, 0.0)))
    return tuple(found[path] for path in ranked)


def _worst(report: GradientReport, section: str) -> tuple[str, ...]:
    prefix = f"{section}/digits/"
    values = metrics.of_report(report, section)
    digits = {name: value for name, value in values.items() if name.startswith(prefix)}
    return tuple(sorted(digits, key=digits.__getitem__))


def _union(*names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for some in names for name in some))


def sections(shown: Shown) -> list[dict[str, Any]]:
    """The sections of a view, in order."""
    ours = [
        _section("gradcheck-failing", "Failing layers (0 pass, 3 fail)", height=240),
        _section("gradcheck-compare", "Runs compared, from the last good one", 1),
        _section("gradcheck-heatmap", "Heatmap (slide through checks)", 1, 620),
        _section("gradcheck-worst", "The ten worst (digits of agreement)", height=240),
    ]
    # Named after a metric prefix: MLflow adds the charts of these metrics here.
    others = [
        _section(f"{section}-{kind or 'other'}", f"{section}{kind and '/'}{kind}", folded=True)
        for section in shown.sections
        for kind in ("verdict", "digits", "score", "precision", "")
    ]
    return [*ours, *others]


def charts(shown: Shown) -> list[dict[str, Any]]:
    """The charts of a view; each belongs to a section."""
    first = schema.FIRST
    return [
        _line_chart("gradcheck-failing", f"{first}/verdict", "verdict", _VERDICT),
        _line_chart("gradcheck-failing", f"{first}/failed_variables", "failed variables"),
        _line_chart("gradcheck-failing", f"{first}/worst_digits", "digits of the worst", _DIGITS),
        *(_line_chart("gradcheck-failing", key, _title(key), _VERDICT) for key in shown.failing),
        {
            **_chart("gradcheck-compare", "DIFFERENCE", "differences between the runs"),
            "compareGroups": ["Tags", "Parameters", "Model metrics"],
            "chartName": "differences between the runs",
            "showChangeFromBaseline": True,
            "showDifferencesOnly": True,
            "baselineColumnUuid": shown.good_run,
        },
        *(_heatmap(f"{section}/heatmap", shown.step) for section in shown.sections),
        *(_line_chart("gradcheck-worst", key, _title(key), _DIGITS) for key in shown.worst),
    ]


def _title(metric: str) -> str:
    """A short title: the layer or variable, and which callback it is of if that is not the first.

    Example:
        >>> _title("gradcheck/digits/hidden.kernel"), _title("gradcheck-gan/verdict/out")
        ('hidden.kernel', 'out (gan)')
    """
    section, _, name = metric.split("/")
    whose = section.removeprefix(schema.FIRST).removeprefix("-")
    return f"{name} ({whose})" if whose else name


def _section(
    uuid: str, name: str, columns: int = 3, height: int = 360, *, folded: bool = False
) -> dict[str, Any]:
    return {
        "uuid": uuid,
        "name": name,
        "display": not folded,
        "isReordered": True,
        "deleted": False,
        "isGenerated": False,
        "columns": columns,
        "cardHeight": height,
    }


def _chart(section: str, kind: str, key: str) -> dict[str, Any]:
    return {
        "uuid": f"{section}-{key}".replace(" ", "-").replace("/", "-"),
        "type": kind,
        "metricSectionId": section,
        "runsCountToCompare": 10,
        "deleted": False,
        "isGenerated": False,
        "displayName": key,
    }


def _heatmap(key: str, step: int) -> dict[str, Any]:
    return {
        **_chart("gradcheck-heatmap", "IMAGE", key),
        "imageKeys": [key],
        "step": step,
        "showRunParams": False,
    }


def _line_chart(
    section: str, metric: str, title: str, limits: Mapping[str, float] | None = None
) -> dict[str, Any]:
    return {
        **_chart(section, "LINE", metric),
        "displayName": title,
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "selectedYAxisMetricKey": "metric",
        "scaleType": "linear",
        "range": dict(limits or {}),
        "lineSmoothness": 0,
        "useGlobalLineSmoothing": True,
        "useGlobalXaxisKey": True,
        "displayPoints": True,
        # MLflow shows a chart's own title only where it takes the metric for one of a machine.
        "nodeLevelSystemMetricConfiguration": {},
        "ignoreOutliers": False,
    }
