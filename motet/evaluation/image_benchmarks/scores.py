"""Scores of generated images, and the tables that they add up to."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table

from motet.evaluation.image_benchmarks.prompts import Prompt
from motet.numerics.statistics import item_interval, paired_interval
from motet.report.tables import signed


@dataclass(frozen=True)
class ImageScore:
    """How a benchmark scored one image.

    `value` is the image's score in [0, 1], None if it could not be scored, for the `reason`. `groups` are the values
    that count in each group of the benchmark's table (tasks, categories), `details` what is written about the image.
    """

    value: float | None
    groups: Mapping[str, Sequence[float]] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None


def summarize(
    scored: Sequence[tuple[int, Prompt, Sequence[ImageScore]]], weights: Mapping[str, float]
) -> dict[str, Any]:
    """The table of a benchmark from (number of the prompt, prompt, its images' scores).

    `weights` are those of the groups whose weighted mean is the overall score, divided by their sum if some of them
    have no image. Their means are over prompts of the mean over a prompt's values; those of other groups are over all
    values. `by_row` are the means of each prompt, `interval` is the half-width of the 95 % interval over prompts.
    """
    groups: dict[str, dict[str, Any]] = {}
    found = {name for _, _, scores in scored for score in scores for name in score.groups}
    for name in [*(name for name in weights if name in found), *sorted(found - weights.keys())]:
        values = [[v for score in scores for v in score.groups.get(name, ())] for _, _, scores in scored]
        by_row = [statistics.fmean(own) if own else None for own in values]
        rows = [mean for mean in by_row if mean is not None]
        mean = statistics.fmean(rows) if name in weights else statistics.fmean(v for own in values for v in own)
        interval = item_interval(rows)[1] if len(rows) > 1 else None
        groups[name] = {"mean": mean, "interval": interval, "rows": len(rows), "by_row": by_row}
    unscored = [
        {"prompt": prompt.name, "image": number, "reason": score.reason}
        for _, prompt, scores in scored
        for number, score in enumerate(scores)
        if score.value is None
    ]
    present = {name: weight for name, weight in weights.items() if name in groups}
    return {
        "overall": _combined([(weight, _mean_and_interval(groups[name])) for name, weight in present.items()]),
        "weights": present,
        "groups": groups,
        "unscored": unscored,
        "prompts": [number for number, _, _ in scored],
        "images": sum(len(scores) for _, _, scores in scored),
    }


def _mean_and_interval(group: Mapping[str, Any]) -> tuple[float, float]:
    return group["mean"], math.inf if group["interval"] is None else group["interval"]


def _combined(parts: Sequence[tuple[float, tuple[float, float]]]) -> dict[str, float | None]:
    """The weighted mean of independent groups, each (weight, (mean, half-width))."""
    total = sum(weight for weight, _ in parts)
    if not total:
        return {"mean": None, "interval": None}
    width = math.sqrt(sum((weight * half / total) ** 2 for weight, (_, half) in parts))
    mean = sum(weight * mean for weight, (mean, _) in parts) / total
    return {"mean": mean, "interval": None if math.isinf(width) else width}


def benchmark_table(columns: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """The overall score and the groups' by heading (before, after), with 95 % intervals over prompts.

    The interval of a change is paired: both evaluations use the same prompts.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    results = list(columns.values())
    if len(results) == 2:
        table.add_column("change", justify="right", no_wrap=True)
    overall = [result["overall"] for result in results]
    names = list(dict.fromkeys(name for result in results for name in result["groups"]))
    groups = {name: [result["groups"].get(name) for result in results] for name in names}
    change = [_overall_change(*results)] if len(results) == 2 else []
    table.add_row("overall", *map(_cell, overall), *change, end_section=True)
    for name, entries in groups.items():
        both = len(entries) == 2 and all(entries)
        change = [signed(paired_interval(entries[0]["by_row"], entries[1]["by_row"])) if both else ""]
        table.add_row(name, *map(_cell, entries), *(change if len(results) == 2 else []))
    if any(result["unscored"] for result in results):
        counts = [f"{len(result['unscored'])} of {result['images']}" for result in results]
        table.add_row("images without a score", *counts, *([""] if len(results) == 2 else []))
    return table


def _cell(entry: Mapping[str, Any] | None) -> str:
    if entry is None or entry["mean"] is None:
        return "none"
    return f"{entry['mean']:.3f}" + ("" if entry["interval"] is None else f" \u00b1 {entry['interval']:.3f}")


def _overall_change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    parts = []
    for name, weight in before["weights"].items():
        pair = [table["groups"].get(name) for table in (before, after)]
        found = paired_interval(pair[0]["by_row"], pair[1]["by_row"]) if all(pair) else None
        if found is not None:
            parts.append((weight, found))
    whole = _combined(parts)
    if whole["mean"] is None:
        return ""
    return signed((whole["mean"], math.inf if whole["interval"] is None else whole["interval"]))
