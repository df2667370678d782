"""Tables of evaluation results for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.table import Table

from motet.numerics.statistics import item_interval, paired_interval
from motet.report.evaluation_results import held_out_splits


def suite_table(columns: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """The shapes suite: one row per category, columns for sampled and greedy accuracy, and the change between two.

    Sampled accuracies have a 95% confidence interval over items; that of the change is paired, because both
    evaluations use the same items. The last rows are the effective numbers of colours, shapes, sizes and cells in
    images whose prompts leave them open (`motet.evaluation.scene_diversity`). `columns` maps a heading (before, after)
    to results as in `summary.json`.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in columns:
        table.add_column(f"{heading}\nT=1", justify="right")
    if len(columns) == 2:
        table.add_column("change\nT=1", justify="right")
    for heading in columns:
        table.add_column(f"{heading}\ngreedy", justify="right")
    results = list(columns.values())
    for skill, shown in (("draw", "image"), ("answer", "answer")):
        for label in results[0][skill]:
            table.add_row(*_cells(f"{shown}: {label}", results, skill, label), end_section=False)
        for split in held_out_splits(results[0]):
            parts = [_of_split(result, split) for result in results]
            table.add_row(*_cells(f"{shown}: {split.replace('_', '-')}", parts, skill, "overall"))
        table.add_section()
    diversities = [result.get("diversity", {}) for result in results]
    for name in sorted({name for one in diversities for name in one}):
        table.add_row(f"open in the prompt: {name}", *_numbers([one.get(name) for one in diversities]))
    return table


def _numbers(values: list[float | None]) -> list[str]:
    """Effective numbers of values, and their change; a dash where there are none."""
    cells = ["-" if value is None else f"{value:.1f}" for value in values]
    if len(values) == 2:
        before, after = values
        cells.append("" if before is None or after is None else f"{after - before:+.1f}")
    return cells


def rewards_table(columns: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """The rewards suite: one row per track and reward, with its mean and 95% interval, the change, and greedy means.

    A single track is not named. In 80 columns greedy means fold, and no column is cut off.

    `columns` maps a heading (before, after) to `table[track][reward]` of the rewards suite. The interval of the change
    is paired: both evaluations use the same rows.
    """
    table = Table(title=title, title_justify="left", pad_edge=False)
    table.add_column("", overflow="fold", min_width=10)
    for heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    if len(columns) == 2:
        table.add_column("change", justify="right", no_wrap=True)
    table.add_column("greedy", justify="right", overflow="fold")
    results = list(columns.values())
    for track, rewards in results[0].items():
        for reward in rewards:
            entries = [result[track][reward] for result in results]
            cells = [_with_interval(entry) for entry in entries]
            if len(entries) == 2:
                cells.append(change(entries[0], entries[1]))
            greedy = " \u2192 ".join(_format(entry["greedy"]) for entry in entries)
            table.add_row(f"{track}: {reward}" if len(results[0]) > 1 else reward, *cells, greedy)
    return table


def _with_interval(entry: Mapping[str, Any]) -> str:
    return _format(entry["mean"]) + ("" if entry["interval"] is None else f" \u00b1 {entry['interval']:.3f}")


def _format(value: float | None) -> str:
    return "no row" if value is None else f"{value:.3f}"


def change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """`+0.123 \u00b1 0.045`: the change of a reward between two evaluations of the same rows, with paired interval."""
    return signed(paired_interval(before["by_row"], after["by_row"]))


def signed(interval: tuple[float, float] | None) -> str:
    """`+0.123 \u00b1 0.045` of (difference, half-width); no half-width if it is infinite (unknown); empty for None."""
    if interval is None:
        return ""
    mean, half_width = interval
    return f"{mean:+.3f}" + ("" if math.isinf(half_width) else f" \u00b1 {half_width:.3f}")


def points(interval: tuple[float, float] | None) -> str:
    """`signed` in percentage points."""
    mean, half_width = interval or (0.0, math.inf)
    return f"{100 * mean:+.1f}" + ("" if math.isinf(half_width) else f" \u00b1 {100 * half_width:.1f}")


def _of_split(result: Mapping[str, Any], split: str) -> Mapping[str, Any]:
    return {**result[split], "greedy": result["greedy"][split], "by_item": result["by_item"][split]}


def _cells(name: str, results: list[Mapping[str, Any]], skill: str, label: str) -> list[str]:
    sampled = [result[skill][label] for result in results]
    greedy = [result["greedy"][skill][label] for result in results]
    items = [result["by_item"][skill][label] for result in results]
    cells = [name, *(f"{value:.1%}" for value in sampled)]
    if len(results) == 2:
        cells.append(points(paired_interval(*items)))
    else:
        half_width = item_interval(items[0])[1]
        cells[1] += "" if math.isinf(half_width) else f" \u00b1 {100 * half_width:.1f}"
    return [*cells, *(f"{value:.1%}" for value in greedy)]
