"""The evaluations before and after training as one table, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from motet.numerics.statistics import paired_interval
from motet.report.evaluation_results import Measured, measured
from motet.report.html.plot import number, ticks
from motet.report.html.read import RunData

_WIDTH, _HEIGHT, _PAD = 150, 22, 12
_TICKS = 4


@dataclass(frozen=True)
class Row:
    """A line of the table: for each run before, after and the difference as texts, and the interval plot of one."""

    label: str
    cells: tuple[tuple[str, str, str, str, str], ...]
    """Of each run: before, after, change, greedy; and `up` or `down` for a change whose interval excludes 0."""
    plot: Markup


@dataclass(frozen=True)
class EvaluationTable:
    """The rows of the table, and the axis of their interval plots: empty where none has one."""

    rows: list[Row]
    axis: Markup


def evaluation_table(runs: Sequence[RunData]) -> EvaluationTable:
    """One row per category, reward or metric that any of the runs has."""
    tables = [(dict(measured(run.before)), dict(measured(run.after))) for run in runs]
    labels = list(dict.fromkeys(label for both in tables for table in both for label in table))
    kept = [[(before.get(label), after.get(label)) for before, after in tables] for label in labels]
    low, high = _range(kept)
    rows: list[Row] = []
    for label, pairs in zip(labels, kept, strict=True):
        percent = low >= 0 and high <= 1
        if len(runs) > 1 and all(after is None for _, after in pairs):
            continue  # side by side, what no run has finished
        plot = _interval_plot(pairs[0], low, high) if len(runs) == 1 and percent else Markup("")
        rows.append(Row(label, tuple(_cells(*pair, percent) for pair in pairs), plot))
    return EvaluationTable(rows, _axis(low, high) if any(row.plot for row in rows) else Markup(""))


def _cells(before: Measured | None, after: Measured | None, percent: bool) -> tuple[str, str, str, str, str]:
    change = None
    if before is not None and after is not None and before.mean is not None and after.mean is not None:
        change = (after.mean - before.mean, None)
        if before.items and len(before.items) == len(after.items):
            change = paired_interval(before.items, after.items) or change
    halves = [one.half if one else None for one in (before, after)] + [change[1] if change else None]
    digits = _digits(halves)
    greedy = [_format(one.greedy, None, percent, digits) for one in (before, after) if one and one.greedy is not None]
    texts = ["" if one is None else _format(one.mean, one.half, percent, digits) for one in (before, after)]
    shown, direction = "" if change is None else _format(*change, percent, digits, signed=True), ""
    if change is not None and abs(change[0]) > (math.inf if change[1] is None else change[1]):
        direction = "up" if change[0] > 0 else "down"
    return texts[0], texts[1], shown, " → ".join(greedy), direction


def _digits(halves: Sequence[float | None]) -> int | None:
    """Decimals that show the smallest interval of a row with two digits, at most 6; None without intervals."""
    known = [half for half in halves if half is not None and math.isfinite(half) and half > 0]
    return max(0, min(6, 1 - math.floor(math.log10(min(known))))) if known else None


def _format(mean: float | None, half: float | None, percent: bool, digits: int | None, *, signed: bool = False) -> str:
    """A mean with its interval: in percent, or with `digits` decimals, None: as few as it can be read with."""

    def shown(value: float) -> str:
        return number(value) if digits is None else f"{value:.{digits}f}"

    if mean is None:
        return ""
    scale = 100 if percent else 1
    sign = "+" if signed and mean > 0 else "−" if mean < 0 else ""
    size = f"{abs(mean) * scale:.1f}" if percent else shown(abs(mean))
    unit = (" pts" if signed else " %") if percent else ""
    spread = ""
    if half is not None and math.isfinite(half):
        spread = f" ± {half * scale:.1f}" if percent else f" ± {shown(half)}"
    return f"{sign}{size}{spread}{unit}"


def _range(rows: Sequence[Sequence[tuple[Measured | None, Measured | None]]]) -> tuple[float, float]:
    """From the lowest to the highest end of all intervals, cut to [0, 1] if all means are in it."""
    known = [one for row in rows for pair in row for one in pair if one is not None and one.mean is not None]
    means = [one.mean for one in known if one.mean is not None]
    if not means:
        return 0.0, 1.0
    ends = [one.mean + s * (one.half or 0) for one in known if one.mean is not None for s in (-1, 1)]
    low, high = min(ends), max(ends)
    return (max(0.0, low), min(1.0, high)) if min(means) >= 0 and max(means) <= 1 else (low, high)


def _interval_plot(pair: tuple[Measured | None, Measured | None], low: float, high: float) -> Markup:
    """Before and after as two dots with their intervals, on the scale of the whole table."""

    def x(value: float) -> float:
        return _place(value, low, high)

    line, dot = (
        Markup('<line class="{}" x1="{:.1f}" y1="{}" x2="{:.1f}" y2="{}"/>'),
        Markup('<circle class="{}" cx="{:.1f}" cy="{}" r="3.4"/>'),
    )
    parts = [line.format("grid", x(value), 0, x(value), _HEIGHT) for value in ticks(low, high, _TICKS)]
    for name, y, one in zip(("was", "now"), (7, 15), pair, strict=True):
        if one is not None and one.mean is not None:
            if one.half is not None and math.isfinite(one.half):
                parts.append(line.format(f"whisker {name}", x(one.mean - one.half), y, x(one.mean + one.half), y))
            parts.append(dot.format(name, x(one.mean), y))
    return Markup('<svg class="range" viewBox="0 0 {} {}" aria-hidden="true">{}</svg>').format(
        _WIDTH, _HEIGHT, Markup("").join(parts)
    )


def _axis(low: float, high: float) -> Markup:
    """The scale of the interval plots: ticks with per cents."""
    text = Markup('<text class="tick" x="{:.1f}" y="11" text-anchor="middle">{}</text>')
    line = Markup('<line class="axis" x1="{0:.1f}" y1="15" x2="{0:.1f}" y2="{1}"/>')
    parts: list[Markup] = []
    for value in ticks(low, high, _TICKS):
        x = _place(value, low, high)
        parts += [text.format(x, number(100 * value)), line.format(x, _HEIGHT)]
    return Markup('<svg class="range" viewBox="0 0 {} {}" role="img" aria-label="scale in per cent">{}</svg>').format(
        _WIDTH, _HEIGHT, Markup("").join(parts)
    )


def _place(value: float, low: float, high: float) -> float:
    """A value in pixels."""
    return _PAD + (_WIDTH - 2 * _PAD) * (min(max(value, low), high) - low) / ((high - low) or 1)
