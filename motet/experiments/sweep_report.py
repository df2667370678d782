"""The tables and the plot of a sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from rich.table import Table

from motet.config.stage_files import COLUMNS
from motet.config.sweep import StrategySweep
from motet.experiments.sweep_results import GREEDY, SweepResult
from motet.experiments.tables import SAMPLED
from motet.report.tables import points, signed

PLOTTED = ("draw", "answer", "held-out draw", "held-out answer")
PARTS = {
    "": tuple(column for column in SAMPLED if not column.startswith("only-")),
    "compositions of one ability": tuple(column for column in SAMPLED if column.startswith("only-")),
    "greedy, and any of the k samples of an item": tuple(column for column in COLUMNS if column not in SAMPLED),
}
"""The tables of the shapes suite by title: columns that fit beside each other, in percentage points."""
OTHERS = ("values of the suite", "values of greedy sampling")
"""The tables of other suites, whose values are shown as they are."""


def sweep_tables(sweep: StrategySweep, compared: Mapping[str, Mapping[str, SweepResult]]) -> list[Table]:
    """Gains with 95 % intervals, in percentage points for the shapes suite; in brackets the paired difference to the
    baseline.

    Columns without results are left out.
    """
    tables = []
    for part, columns in _parts(compared).items():
        if not columns:
            continue
        title = f"Gain{' in points' if part in PARTS else ''} over {len(sweep.seeds)} seeds (95 % interval)"
        title += f"{part and ': '}{part}; in brackets: difference to {sweep.baseline}, effect size d"
        table = Table(title=title, title_justify="left")
        table.add_column("")
        table.add_column("rollouts per seed")
        for column in columns:
            table.add_column(column, justify="right")
        for strategy, row in compared.items():
            counts = ", ".join(f"{count} {name}" for name, count in sweep.budget(strategy).items())
            table.add_row(strategy, counts, *(_cell(row.get(column), column) for column in columns))
        tables.append(table)
    return tables


def _parts(compared: Mapping[str, Mapping[str, SweepResult]]) -> dict[str, list[str]]:
    """The columns of each table that have results."""
    found = list(dict.fromkeys(column for row in compared.values() for column in row))
    own = {part: [column for column in columns if column in found] for part, columns in PARTS.items()}
    others = [column for column in found if column not in COLUMNS]
    greedy = [column for column in others if column.startswith(GREEDY)]
    return {**own, OTHERS[0]: [column for column in others if column not in greedy], OTHERS[1]: greedy}


def _cell(result: SweepResult | None, column: str) -> str:
    if result is None:
        return ""
    show = points if column in COLUMNS else signed
    if result.difference is None:
        return show(result.gain)
    effect = "" if result.effect is None else f", d {result.effect:+.1f}"
    return f"{show(result.gain)}\n[{show(result.difference)}{effect}]"


def plot(sweep: StrategySweep, compared: Mapping[str, Mapping[str, SweepResult]], path: Path) -> None:
    """Plot gains with their intervals, one panel per column and one dot per seed. Needs matplotlib.

    Of other suites than shapes it shows the first four columns.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    parts = _parts(compared)
    columns = [*PLOTTED] if any(parts[part] for part in PARTS) else parts[OTHERS[0]][: len(PLOTTED)]
    figure, axes = pyplot.subplots(
        1, max(1, len(columns)), figsize=(3.2 * len(PLOTTED), 3.6), sharey=True, squeeze=False
    )
    names = list(compared)
    for panel, column in zip(axes[0], columns, strict=False):
        scale = 100 if column in COLUMNS else 1
        for position, name in enumerate(names):
            result = compared[name].get(column)
            if result is None:
                continue
            mean, half_width = result.gain
            start = sum(result.values) / len(result.values) - mean
            dots = [scale * (value - start) for value in result.values]
            panel.scatter(dots, [position] * len(dots), s=12, alpha=0.4)
            error = None if math.isinf(half_width) else scale * half_width
            panel.errorbar(scale * mean, position, xerr=error, fmt="o", capsize=4, color="black")
        panel.axvline(0, linewidth=0.8, color="grey")
        panel.set_title(column)
        panel.set_xlabel("gain in points" if column in COLUMNS else "gain")
    axes[0][0].set_yticks(range(len(names)), names)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
