"""`motet bench`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from motet.cli.outputs import show_numbers, write_numbers, write_output
from motet.config import load_recipe
from motet.config.bench_scenarios import StageFilter, load_bench
from motet.core.errors import CheckpointError
from motet.evaluation.bench_rewards import Agreement, audit_rewards
from motet.evaluation.bench_rollout import bench_rollout as race
from motet.report.progress import ProgressBar
from motet.report.terminal import Terminal
from motet.weights.hub import missing_reason
from motet.weights.locate import resolve_checkpoint


def bench_rollout(
    checkpoint: str | None, batch_sizes: Sequence[int], guidance_scale: float, repeats: int, json_path: Path | None
) -> None:
    """Race our sampler against transformers' and print a row per task and batch size."""
    path = None if checkpoint is None else resolve_checkpoint(checkpoint)
    missing = None if path is None else missing_reason(path, "checkpoint")
    if missing is not None:
        raise CheckpointError(missing, fix="give a Janus checkpoint, or none at all.")
    try:
        rows = race(path, batch_sizes, guidance_scale, repeats)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path!r} cannot be raced: {str(error).splitlines()[0]}", fix="give a Janus checkpoint, or none at all."
        ) from error
    show_numbers(rollout_table(rows), rows, json_path)


def bench_rewards(
    recipe_path: Path, overrides: list[str], rollouts: int, against: str | None, json_path: Path | None
) -> None:
    """Play a recipe's first rollouts and print how its rewards agree with the trusted one."""
    recipe = load_recipe(recipe_path, overrides)
    console = Terminal()
    with ProgressBar(console) as bar:
        found = audit_rewards(recipe, rollouts, against, lambda done, total: bar.items("play", done, total))
    show_numbers(rewards_table(found), [asdict(row) for row in found], json_path)


def bench_scenarios(path: Path, output: Path, choice: StageFilter, overrides: list[str], *, resume: bool) -> None:
    """Run the chosen stages over seeds; leave `scenarios.json` and `scenarios.md` in `output`, and print the tables."""
    plans = load_bench(path, output, choice, overrides)
    from motet.experiments.bench_scenarios import run_scenarios, sheets

    console, made = Terminal(), []
    for found in run_scenarios(plans, output, _again(path, output, choice, overrides), resume=resume):
        made = sheets(found)
        write_numbers(output / "scenarios.json", asdict(found))
        tables = "\n".join(sheet.markdown() for sheet in made)
        write_output("--output", output / "scenarios.md", tables.encode())
    for sheet in made if len(plans) > 1 else ():  # of one seed the plan has shown them
        console.print(sheet)
    console.print(f"Tables: {output / 'scenarios.md'}", soft_wrap=True, highlight=False, markup=False)


def bench_step(recipe_path: Path, overrides: list[str], steps: int, warmup: int, json_path: Path | None) -> None:
    """Run some training steps and print what they took."""
    recipe = load_recipe(recipe_path, overrides)
    from motet.evaluation.bench_step import bench_step as measure

    console = Terminal()
    with ProgressBar(console) as bar:
        bar.steps = lambda: warmup + steps
        found = measure(recipe, steps, warmup, bar)
    table = Table(title=f"One step of {found.trajectories} trajectories on {escape(found.device)}", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    for phase, seconds in found.seconds.items():
        table.add_row(f"{escape(phase)}, s", f"{seconds:.2f}")
    table.add_row("whole step, s", f"{found.step_seconds:.2f}")
    table.add_row("images/s over the whole step", f"{found.images_per_second:.3g}")
    table.add_row("peak memory, GB", f"{found.peak_gb:.2f}")
    table.add_row("trained numbers, M", f"{found.trained / 1e6:,.1f}")
    show_numbers(table, asdict(found), json_path)


def _again(path: Path, output: Path, choice: StageFilter, overrides: Sequence[str]) -> str:
    """The command that goes on, as one types it into a shell."""
    options = [
        *(("--seed", str(seed)) for seed in choice.seeds),
        *(("--only", name) for name in choice.only),
        *(("--policy", name) for name in choice.policies),
        *(() if choice.budget is None else (("--budget", str(choice.budget)),)),
    ]
    words = [word for option in options for word in option]
    return shlex.join(
        ["motet", "bench", "scenarios", *overrides, "--plan", str(path), *words, "--output", str(output), "--resume"]
    )


def rewards_table(found: Sequence[Agreement]) -> Table:
    """One row per reward: its spread, and its agreement over all, within groups, and over pairs of siblings."""
    trusted = ", ".join(sorted({row.against for row in found}))
    table = Table(title=f"Agreement with {escape(trusted)}", title_justify="left")
    table.add_column("reward", overflow="fold")
    for heading in ("mean", "over all", "within groups", "ranked right"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in found:
        name = f"{row.track}: {row.reward}" if row.track else row.reward
        within, ranked = row.within, [100 * share for share in row.pairwise_accuracy]
        table.add_row(
            escape(name),
            f"{row.mean:.2f}\u00b1{row.std:.2f}",
            f"{row.overall[0]:.2f}",
            f"{within[0]:.2f} [{within[1]:.2f}, {within[2]:.2f}]",
            f"{ranked[0]:.0f} % [{ranked[1]:.0f}, {ranked[2]:.0f}]",
        )
    counts = " and ".join(str(count) for count in sorted({row.siblings for row in found}))
    table.caption = (
        f"{counts} trajectories. Correlations; sibling pairs that the trusted reward tells apart, 50 % ranked right is "
        "chance. In brackets 95 % intervals over groups."
    )
    return table


def rollout_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Sequences per second of both sides, their ratio with its extremes, and our time in units of the floor's."""
    table = Table(title="Sequences per second, same weights and same tokens", title_justify="left")
    table.add_column("task", no_wrap=True)
    for heading in ("batch", "motet", "theirs", "ratio", "lowest", "highest", "floor"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        guided = "" if row["guidance_scale"] is None else f", guided {row['guidance_scale']:g}"
        speeds = [f"{row[key]:.1f}" for key in ("per_second", "baseline_per_second")]
        ratios = [f"{row[key]:.2f}" for key in ("ratio", "ratio_low", "ratio_high", "times_the_floor")]
        table.add_row(f"{row['task']}{guided}", str(row["batch"]), *speeds, *ratios)
    baselines = sorted({row["baseline"] for row in rows})
    table.caption = f"theirs: {', '.join(baselines)} of transformers; floor: our time over that of the matrix products"
    return table
