"""What the strategies of a sweep gained over seeds, from the summaries of their runs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motet.config.plan import Stage
from motet.config.stage_files import COLUMNS
from motet.config.sweep import StrategySweep
from motet.experiments.eval_cache import same_eval_settings
from motet.experiments.tables import cell
from motet.numerics.statistics import effect_size, mean_interval
from motet.report.evaluation_results import measured
from motet.report.resume_mode import SUMMARY

GREEDY = "greedy, "
"""Before the name of a column of greedy results, of other suites than shapes."""


@dataclass(frozen=True)
class SweepResult:
    """Results of one strategy in one column over seeds."""

    gain: tuple[float, float]
    """Change from the starting weights: mean and half-width of the 95 % interval."""
    difference: tuple[float, float] | None
    """Paired difference to the baseline, likewise; None for the baseline."""
    effect: float | None
    """Effect size: the paired differences' mean over their standard deviation (Cohen's d_z); None without."""
    values: tuple[float, ...]
    """The result of each seed."""

    def to_json(self) -> dict[str, Any]:
        """As fractions, not points; `interval` is a half-width, null for one seed."""
        found: dict[str, Any] = {"values": self.values, "effect": self.effect}
        for name in ("gain", "difference"):
            mean, half_width = getattr(self, name) or (None, None)
            found[name] = mean
            found[f"{name}_interval"] = None if half_width is None or math.isinf(half_width) else half_width
        return found


def compare(sweep: StrategySweep, output: Path) -> dict[str, dict[str, SweepResult]]:
    """Strategy -> column -> results, from the summaries below `output`; columns that all seeds have."""
    gains: dict[str, dict[str, list[float]]] = {}
    ends: dict[str, dict[str, list[float]]] = {}
    for seed in sweep.seeds:
        summaries = {
            name: json.loads((sweep.folder(output, name, seed) / SUMMARY).read_text(encoding="utf-8"))
            for name in sweep.plans
        }
        starts = {name: _starts(sweep, name, summary) for name, summary in summaries.items()}
        for strategy, summary in summaries.items():
            for column, (start, end) in _ends(sweep, strategy, _known_starts(sweep, strategy, starts), summary).items():
                gains.setdefault(strategy, {}).setdefault(column, []).append(end - start)
                ends.setdefault(strategy, {}).setdefault(column, []).append(end)
    compared: dict[str, dict[str, SweepResult]] = {}
    baseline = ends.get(sweep.baseline, {})
    for strategy, columns in gains.items():
        for column, values in columns.items():
            if len(values) < len(sweep.seeds):
                continue
            other = baseline.get(column, [])
            paired = effect = None
            if strategy != sweep.baseline and len(other) == len(values):
                differences = [a - b for a, b in zip(ends[strategy][column], other, strict=True)]
                paired, effect = mean_interval(differences), effect_size(differences)
            result = SweepResult(mean_interval(values), paired, effect, tuple(ends[strategy][column]))
            compared.setdefault(strategy, {})[column] = result
    return compared


def _first_stages(sweep: StrategySweep, strategy: str) -> list[Stage]:
    return [stage for stage in next(iter(sweep.plans[strategy].values())).stages if not stage.init_from]


def _starts(sweep: StrategySweep, strategy: str, summary: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The evaluations of the starting weights in a strategy's summary; none where it begins with SFT."""
    if sweep.suite(strategy) == "shapes":
        found = [summary["starts"].get("start")]
    else:
        found = [summary["stages"][stage.name].get("before") for stage in _first_stages(sweep, strategy)]
    return [start for start in found if start is not None]


def _known_starts(
    sweep: StrategySweep, strategy: str, starts: Mapping[str, list[Mapping[str, Any]]]
) -> list[Mapping[str, Any]]:
    """A strategy's own, or those of one that begins with the same weights and is evaluated in the same way."""
    first = _first_stages(sweep, strategy)[0].recipe
    for name in (strategy, *sweep.plans):
        other = _first_stages(sweep, name)[0].recipe
        alike = name == strategy or (first.policy.path == other.policy.path and same_eval_settings(first, other))
        if starts[name] and alike:
            return starts[name]
    return []


def _ends(
    sweep: StrategySweep, strategy: str, starts: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]
) -> dict[str, tuple[float, float]]:
    """Column -> the value of the starting weights, and that of the strategy's result."""
    result = sweep.results[strategy]
    if sweep.suite(strategy) != "shapes":
        return _ends_of_suite(starts, summary["stages"][next(iter(result.values()))].get("after"))
    ends: dict[str, tuple[float, float]] = {}
    for column in COLUMNS:
        stage = result.get(column)
        end = cell(summary["stages"][stage].get("after"), column) if stage is not None else None
        start = cell(starts[0], column) if starts else None
        if start is not None and end is not None:
            ends[column] = (start, end)
    return ends


def _ends_of_suite(
    starts: Sequence[Mapping[str, Any]], end: Mapping[str, Any] | None
) -> dict[str, tuple[float, float]]:
    """Every result of a suite, sampled and greedy, that the starting weights and the result both have."""
    before = {label: one for start in reversed(starts) for label, one in measured(start)}
    after = dict(measured(end))
    ends: dict[str, tuple[float, float]] = {}
    for label in [label for label in after if label in before]:
        for name, old, new in (
            (label, before[label].mean, after[label].mean),
            (f"{GREEDY}{label}", before[label].greedy, after[label].greedy),
        ):
            if old is not None and new is not None:
                ends[name] = (old, new)
    return ends
