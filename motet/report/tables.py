"""Tables of a suite's numbers for the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from motet.numerics.intervals import mean_interval, paired_interval


def suite_table(columns: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """One row per category and kind, one pair of columns (sampled, greedy) per measurement; with two, the change.

    What was sampled has a 95 % interval over items; that of the change is paired, as both measure the same items.
    `columns` maps a heading (before, after) to numbers in the shape of `summary.json`.
    """
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in columns:
        table.add_column(f"{escape(heading)}\nT=1", justify="right")
    if len(columns) == 2:
        table.add_column("change\nT=1", justify="right")
    for heading in columns:
        table.add_column(f"{escape(heading)}\ngreedy", justify="right")
    views = list(columns.values())
    for skill in ("draw", "answer"):
        for label in views[0][skill]:
            table.add_row(*_cells(f"{skill}: {label}", views, skill, label), end_section=False)
        table.add_row(
            *_cells(f"{skill}: held-out", [_held_out(view) for view in views], skill, "overall"),
            end_section=True,
        )
    return table


def rewards_table(columns: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """One row per track and reward: its mean with the interval per measurement, the change, and the greedy means.

    `columns` maps a heading (before, after) to `table[track][reward]` of the rewards suite. The change's interval is
    paired: both measurements are of the same rows.
    """
    table = Table(title=title, title_justify="left", pad_edge=False)
    table.add_column("", overflow="fold", min_width=12)
    for heading in columns:
        table.add_column(escape(heading), justify="right", no_wrap=True)
    if len(columns) == 2:
        table.add_column("change", justify="right", no_wrap=True)
    table.add_column("greedy", justify="right", no_wrap=True)
    views = list(columns.values())
    for track, rewards in views[0].items():
        for reward in rewards:
            own = [view[track][reward] for view in views]
            cells = [_with_interval(one) for one in own]
            if len(own) == 2:
                cells.append(change(own[0], own[1]))
            table.add_row(escape(f"{track}: {reward}"), *cells, " \u2192 ".join(_number(one["greedy"]) for one in own))
    return table


def _with_interval(one: Mapping[str, Any]) -> str:
    return _number(one["mean"]) + ("" if one["interval"] is None else f" \u00b1 {one['interval']:.3f}")


def _number(value: float | None) -> str:
    return "no row" if value is None else f"{value:.3f}"


def change(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """`+0.123 \u00b1 0.045`: from one measurement of a reward to another on the same rows, with its paired interval."""
    return signed(paired_interval(before["by_row"], after["by_row"]))


def signed(interval: tuple[float, float] | None) -> str:
    """A difference with the half-width of its interval; without, where that is not known; empty for none."""
    if interval is None:
        return ""
    mean, half = interval
    return f"{mean:+.3f}" + ("" if math.isinf(half) else f" \u00b1 {half:.3f}")


def _points(interval: tuple[float, float] | None) -> str:
    """`signed` in percentage points."""
    mean, half = interval or (0.0, math.inf)
    return f"{100 * mean:+.1f}" + ("" if math.isinf(half) else f" \u00b1 {100 * half:.1f}")


def _held_out(view: Mapping[str, Any]) -> dict[str, Any]:
    return {**view["held_out"], "greedy": view["greedy"]["held_out"], "by_item": view["by_item"]["held_out"]}


def _cells(name: str, views: list[Mapping[str, Any]], skill: str, label: str) -> list[str]:
    sampled = [view[skill][label] for view in views]
    greedy = [view["greedy"][skill][label] for view in views]
    items = [view["by_item"][skill][label] for view in views]
    cells = [name, *(f"{value:.1%}" for value in sampled)]
    if len(views) == 2:
        cells.append(_points(paired_interval(*items)))
    else:
        cells[1] += f" \u00b1 {100 * mean_interval(items[0])[1]:.1f}"
    return [*cells, *(f"{value:.1%}" for value in greedy)]
