"""Runs a sweep and compares its strategies, seed by seed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from motet.config.stage_files import COLUMNS, Row
from motet.config.sweep import StrategySweep
from motet.core.errors import ConfigError, RunFolderError
from motet.experiments.eval_cache import EvalCache
from motet.experiments.stages import SUMMARY, run_plan
from motet.experiments.tables import cell
from motet.numerics.statistics import mean_interval
from motet.report.terminal import Terminal

PLOTTED = ("draw", "answer", "held-out draw", "held-out answer")


@dataclass(frozen=True)
class Compared:
    """One strategy on one column, over seeds: the gain on its starting point, and on the baseline."""

    gain: tuple[float, float]
    """Mean and half-width of the 95 % interval."""
    difference: tuple[float, float] | None
    """The same for the paired difference; None for the baseline."""
    values: tuple[float, ...]


def run_sweep(sweep: StrategySweep, output: Path, resume_command: str, *, resume: bool) -> None:
    """Every strategy under every seed, all strategies of a seed before the next seed; then the comparison.

    What is finished is skipped, so a sweep may be completed over several calls. Raises as `run_plan` does.
    """
    if output.exists() and any(output.iterdir()) and not resume:
        fix = "add --resume to continue there, or give another --output."
        raise RunFolderError(f"The output folder {str(output)!r} is already in use.", fix=fix)
    if find_spec("matplotlib") is None:  # now, not after hours of runs
        raise ConfigError("The plot of a sweep needs matplotlib.", fix="pip install 'motet[plots]'.")
    console, measurements = Terminal(), EvalCache()
    for seed in sweep.seeds:
        for strategy, plans in sweep.plans.items():
            console.rule(f"seed {seed}: {strategy}")
            run_plan(
                plans[seed],
                sweep.folder(output, strategy, seed),
                resume_command,
                resume=True,
                measurements=measurements,
            )
    compared = compare(sweep, output)
    console.print(sweep_table(sweep, compared))
    plot(sweep, compared, output / "sweep.png")
    console.print(f"Plot: {output / 'sweep.png'}", soft_wrap=True, highlight=False, markup=False)


def compare(sweep: StrategySweep, output: Path) -> dict[str, dict[str, Compared]]:
    """Strategy -> column -> numbers, from the summaries below `output`."""
    gains: dict[str, dict[str, list[float]]] = {}
    ends: dict[str, dict[str, list[float]]] = {}
    for strategy in sweep.plans:
        for seed in sweep.seeds:
            path = sweep.folder(output, strategy, seed) / SUMMARY
            summary = json.loads(path.read_text(encoding="utf-8"))
            for column, (start, end) in _ends(sweep.results[strategy], summary).items():
                gains.setdefault(strategy, {}).setdefault(column, []).append(end - start)
                ends.setdefault(strategy, {}).setdefault(column, []).append(end)
    compared: dict[str, dict[str, Compared]] = {}
    for strategy, columns in gains.items():
        for column, values in columns.items():
            other = ends[sweep.baseline].get(column)
            paired = None
            if strategy != sweep.baseline and other is not None:
                paired = mean_interval([a - b for a, b in zip(ends[strategy][column], other, strict=True)])
            numbers = Compared(mean_interval(values), paired, tuple(ends[strategy][column]))
            compared.setdefault(strategy, {})[column] = numbers
    return compared


def _ends(result: Row, summary: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    found: dict[str, tuple[float, float]] = {}
    for column in COLUMNS:
        stage = result.get(column)
        end = cell(summary["stages"][stage].get("after"), column) if stage is not None else None
        start = cell(summary["starts"].get("start"), column)
        if start is not None and end is not None:
            found[column] = (start, end)
    return found


def sweep_table(sweep: StrategySweep, compared: Mapping[str, Mapping[str, Compared]]) -> Table:
    """Gains in points with 95 % intervals; below each the paired difference to the baseline."""
    title = f"Gain in points over {len(sweep.seeds)} seeds (95 % interval); in brackets: difference to {sweep.baseline}"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    table.add_column("rollouts per seed")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for strategy, columns in compared.items():
        counts = ", ".join(f"{count} {name}" for name, count in sweep.budget(strategy).items())
        cells = [_cell(columns[column]) if column in columns else "" for column in COLUMNS]
        table.add_row(escape(strategy), counts, *cells)
    return table


def _cell(numbers: Compared) -> str:
    text = _points(numbers.gain)
    return text if numbers.difference is None else f"{text}\n[{_points(numbers.difference)}]".replace("[", "\\[")


def _points(interval: tuple[float, float]) -> str:
    mean, half = interval
    return f"{100 * mean:+.1f}" + ("" if math.isinf(half) else f" ± {100 * half:.1f}")


def plot(sweep: StrategySweep, compared: Mapping[str, Mapping[str, Compared]], path: Path) -> None:
    """Gains with their intervals, one panel per column, every seed as a dot. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(PLOTTED), figsize=(3.2 * len(PLOTTED), 3.6), sharey=True)
    names = list(compared)
    for panel, column in zip(panels, PLOTTED, strict=True):
        for place, name in enumerate(names):
            numbers = compared[name].get(column)
            if numbers is None:
                continue
            mean, half = numbers.gain
            start = sum(numbers.values) / len(numbers.values) - mean
            panel.scatter(
                [100 * (value - start) for value in numbers.values], [place] * len(numbers.values), s=12, alpha=0.4
            )
            error = None if math.isinf(half) else 100 * half
            panel.errorbar(100 * mean, place, xerr=error, fmt="o", capsize=4, color="black")
        panel.axvline(0, linewidth=0.8, color="grey")
        panel.set_title(column)
        panel.set_xlabel("gain in points")
    panels[0].set_yticks(range(len(names)), names)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
