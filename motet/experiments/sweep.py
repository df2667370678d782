"""Run the strategies of a sweep over seeds and compare them."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

from motet.config.sweep import StrategySweep
from motet.core.atomic_files import write_atomic
from motet.core.errors import ConfigError
from motet.experiments.eval_cache import EvalCache
from motet.experiments.run_report import with_comparison
from motet.experiments.stages import check_unused, run_plan
from motet.experiments.sweep_report import plot, sweep_tables
from motet.experiments.sweep_results import compare
from motet.report.resume_mode import ResumeChoice
from motet.report.run_count import RunCount
from motet.report.run_lock import held_output
from motet.report.terminal import Terminal


def run_sweep(sweep: StrategySweep, output: Path, resume_command: str, *, resume: ResumeChoice) -> None:
    """Run every strategy with every seed, all strategies of a seed before the next seed; then compare them.

    Finished stages are skipped, so a sweep can be extended later, and its parts can be run before by other processes.
    Raises the errors of `run_plan`.
    """
    check_unused(output, resume, [sweep.folder(output, name, seed) for name in sweep.plans for seed in sweep.seeds])
    if find_spec("matplotlib") is None:  # check now, not after hours of runs
        raise ConfigError("The plot of a sweep needs matplotlib.", fix="pip install 'motet[plots]'.")
    console = Terminal()
    runs = [
        sweep.folder(output, strategy, seed) / stage.name
        for seed in sweep.seeds
        for strategy, plans in sweep.plans.items()
        for stage in plans[seed].stages
    ]
    with held_output(output), with_comparison(runs, output, console):
        _run(sweep, output, resume_command, console)
    compared = compare(sweep, output)
    for table in sweep_tables(sweep, compared):
        console.print(table)
    for strategy in sweep.plans:
        if strategy not in compared:
            console.say(
                f"Strategy {strategy!r} is not compared: its result was not evaluated, or its starting weights were "
                "not, neither by it nor by a strategy with the same weights and evaluation."
            )
    results = {name: {column: result.to_json() for column, result in row.items()} for name, row in compared.items()}
    write_atomic(output / "sweep.json", (json.dumps(results, indent=2, ensure_ascii=False) + "\n").encode())
    plot(sweep, compared, output / "sweep.png")
    console.say(f"Plot: {output / 'sweep.png'}")


def run_part(part: StrategySweep, output: Path, resume_command: str, *, resume: ResumeChoice) -> None:
    """Run a part of a sweep without comparing: several processes can run other parts into one output at a time.

    One process at a time runs a strategy under a seed. Raises the errors of `run_plan`.
    """
    for strategy, plans in part.plans.items():
        for seed in part.seeds:
            folder = part.folder(output, strategy, seed)
            check_unused(folder, resume, [folder / stage.name for stage in plans[seed].stages])
    _run(part, output, resume_command, Terminal())


def _run(sweep: StrategySweep, output: Path, resume_command: str, console: Terminal) -> None:
    count, eval_cache = RunCount(console, len(sweep.seeds) * len(sweep.plans)), EvalCache()
    for seed in sweep.seeds:
        for strategy, plans in sweep.plans.items():
            folder = sweep.folder(output, strategy, seed)
            with count.run(f"seed {seed}: {strategy}"):
                run_plan(plans[seed], folder, resume_command, resume=True, eval_cache=eval_cache)
