"""Run the strategies of a sweep over seeds and compare them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.table import Table

from motet.config.stage_files import COLUMNS, Row
from motet.config.sweep import StrategySweep
from motet.core.atomic_files import write_atomic
from motet.core.errors import ConfigError
from motet.experiments.eval_cache import EvalCache
from motet.experiments.run_report import with_comparison
from motet.experiments.stages import check_unused, run_plan
from motet.experiments.tables import SAMPLED, cell
from motet.numerics.statistics import effect_size, mean_interval
from motet.report.resume_mode import SUMMARY, ResumeChoice
from motet.report.run_count import RunCount
from motet.report.run_lock import held_output
from motet.report.terminal import Terminal

PLOTTED = ("draw", "answer", "held-out draw", "held-out answer")
PARTS = {
    "": tuple(column for column in SAMPLED if not column.startswith("only-")),
    "compositions of one ability": tuple(column for column in SAMPLED if column.startswith("only-")),
    "greedy, and any of the k samples of an item": tuple(column for column in COLUMNS if column not in SAMPLED),
}
"""The tables of a sweep by title: columns that fit beside each other."""


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


def run_sweep(sweep: StrategySweep, output: Path, resume_command: str, *, resume: ResumeChoice) -> None:
    """Run every strategy with every seed, all strategies of a seed before the next seed; then compare them.

    Finished stages are skipped, so a sweep can be extended later. Raises the errors of `run_plan`.
    """
    check_unused(output, resume, [sweep.folder(output, name, seed) for name in sweep.plans for seed in sweep.seeds])
    if find_spec("matplotlib") is None:  # check now, not after hours of runs
        raise ConfigError("The plot of a sweep needs matplotlib.", fix="pip install 'motet[plots]'.")
    console, eval_cache = Terminal(), EvalCache()
    runs = [
        sweep.folder(output, strategy, seed) / stage.name
        for seed in sweep.seeds
        for strategy, plans in sweep.plans.items()
        for stage in plans[seed].stages
    ]
    count = RunCount(console, len(sweep.seeds) * len(sweep.plans))
    with held_output(output), with_comparison(runs, output, console):
        for seed in sweep.seeds:
            for strategy, plans in sweep.plans.items():
                folder = sweep.folder(output, strategy, seed)
                with count.run(f"seed {seed}: {strategy}"):
                    run_plan(plans[seed], folder, resume_command, resume=True, eval_cache=eval_cache)
    compared = compare(sweep, output)
    for table in sweep_tables(sweep, compared):
        console.print(table)
    results = {name: {column: result.to_json() for column, result in row.items()} for name, row in compared.items()}
    write_atomic(output / "sweep.json", (json.dumps(results, indent=2, ensure_ascii=False) + "\n").encode())
    plot(sweep, compared, output / "sweep.png")
    console.say(f"Plot: {output / 'sweep.png'}")


def compare(sweep: StrategySweep, output: Path) -> dict[str, dict[str, SweepResult]]:
    """Strategy -> column -> results, from the summaries below `output`."""
    gains: dict[str, dict[str, list[float]]] = {}
    ends: dict[str, dict[str, list[float]]] = {}
    for strategy in sweep.plans:
        for seed in sweep.seeds:
            path = sweep.folder(output, strategy, seed) / SUMMARY
            summary = json.loads(path.read_text(encoding="utf-8"))
            for column, (start, end) in _ends(sweep.results[strategy], summary).items():
                gains.setdefault(strategy, {}).setdefault(column, []).append(end - start)
                ends.setdefault(strategy, {}).setdefault(column, []).append(end)
    compared: dict[str, dict[str, SweepResult]] = {}
    for strategy, columns in gains.items():
        for column, values in columns.items():
            other = ends[sweep.baseline].get(column)
            paired = effect = None
            if strategy != sweep.baseline and other is not None:
                differences = [a - b for a, b in zip(ends[strategy][column], other, strict=True)]
                paired, effect = mean_interval(differences), effect_size(differences)
            result = SweepResult(mean_interval(values), paired, effect, tuple(ends[strategy][column]))
            compared.setdefault(strategy, {})[column] = result
    return compared


def _ends(result: Row, summary: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    ends: dict[str, tuple[float, float]] = {}
    for column in COLUMNS:
        stage = result.get(column)
        end = cell(summary["stages"][stage].get("after"), column) if stage is not None else None
        start = cell(summary["starts"].get("start"), column)
        if start is not None and end is not None:
            ends[column] = (start, end)
    return ends


def sweep_tables(sweep: StrategySweep, compared: Mapping[str, Mapping[str, SweepResult]]) -> list[Table]:
    """Gains in percentage points with 95 % intervals; in brackets the paired difference to the baseline.

    Columns without results are left out.
    """
    tables = []
    for part, names in PARTS.items():
        columns = [name for name in names if any(name in row for row in compared.values())]
        if not columns:
            continue
        title = f"Gain in points over {len(sweep.seeds)} seeds (95 % interval){part and ': '}{part}; in brackets: "
        title += f"difference to {sweep.baseline}, effect size d"
        table = Table(title=title, title_justify="left")
        table.add_column("")
        table.add_column("rollouts per seed")
        for column in columns:
            table.add_column(column, justify="right")
        for strategy, row in compared.items():
            counts = ", ".join(f"{count} {name}" for name, count in sweep.budget(strategy).items())
            table.add_row(strategy, counts, *(_cell(row[column]) if column in row else "" for column in columns))
        tables.append(table)
    return tables


def _cell(result: SweepResult) -> str:
    text = _points(result.gain)
    if result.difference is None:
        return text
    return f"{text}\n[{_points(result.difference)}" + ("]" if result.effect is None else f", d {result.effect:+.1f}]")


def _points(interval: tuple[float, float]) -> str:
    mean, half_width = interval
    return f"{100 * mean:+.1f}" + ("" if math.isinf(half_width) else f" ± {100 * half_width:.1f}")


def plot(sweep: StrategySweep, compared: Mapping[str, Mapping[str, SweepResult]], path: Path) -> None:
    """Plot gains with their intervals, one panel per column and one dot per seed. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(PLOTTED), figsize=(3.2 * len(PLOTTED), 3.6), sharey=True)
    names = list(compared)
    for panel, column in zip(panels, PLOTTED, strict=True):
        for position, name in enumerate(names):
            result = compared[name].get(column)
            if result is None:
                continue
            mean, half_width = result.gain
            start = sum(result.values) / len(result.values) - mean
            panel.scatter(
                [100 * (value - start) for value in result.values], [position] * len(result.values), s=12, alpha=0.4
            )
            error = None if math.isinf(half_width) else 100 * half_width
            panel.errorbar(100 * mean, position, xerr=error, fmt="o", capsize=4, color="black")
        panel.axvline(0, linewidth=0.8, color="grey")
        panel.set_title(column)
        panel.set_xlabel("gain in points")
    panels[0].set_yticks(range(len(names)), names)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
