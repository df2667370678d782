"""`motet bench`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.table import Table

from motet.cli.bench_tables import learner_table, memory_table, overlap_table, scaling_table
from motet.cli.outputs import show_results, write_output, write_results
from motet.config import load_recipe
from motet.config.bench_scenarios import StageFilter, load_bench
from motet.core.errors import CheckpointError
from motet.evaluation.bench_rewards import Agreement, audit_rewards
from motet.evaluation.bench_rollout import bench_rollout as benchmark_sampler
from motet.evaluation.measuring import describe_machine
from motet.report.progress import ProgressBar, waiting
from motet.report.resume_mode import ResumeChoice
from motet.report.terminal import Terminal
from motet.weights.hub import missing_reason
from motet.weights.locate import resolve_checkpoint


def bench_rollout(
    checkpoint: str | None,
    batch_sizes: Sequence[int],
    guidance_scale: float,
    repeats: int,
    json_path: Path | None,
    **where: Any,
) -> None:
    """Compare our sampler with transformers' and print a row per task and batch size."""
    path = None if checkpoint is None else resolve_checkpoint(checkpoint)
    missing = None if path is None else missing_reason(path, "checkpoint")
    if missing is not None:
        raise CheckpointError(missing, fix="give a Janus checkpoint, or omit it to use a random model.")
    try:
        with ProgressBar(Terminal()) as bar:
            bar.phase("comparison")
            rows = benchmark_sampler(
                path,
                batch_sizes,
                guidance_scale,
                repeats,
                lambda done, total: bar.items("comparison", done, total),
                **where,
            )
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path!r} cannot be benchmarked: {str(error).splitlines()[0]}",
            fix="give a Janus checkpoint, or omit it to use a random model.",
        ) from error
    show_results(rollout_table(rows), {"machine": describe_machine(), "rows": rows}, json_path)


def bench_rewards(
    recipe_path: Path, overrides: list[str], rollouts: int, trusted: str | None, json_path: Path | None
) -> None:
    """Run a recipe's first rollouts and print how its rewards agree with the trusted one."""
    recipe = load_recipe(recipe_path, overrides)
    console = Terminal()
    with ProgressBar(console, live=False) as bar:  # reward models may be downloaded
        bar.phase("rollout")
        results = audit_rewards(recipe, rollouts, trusted, lambda done, total: bar.items("rollout", done, total))
    show_results(rewards_table(results), [asdict(row) for row in results], json_path)


def bench_scenarios(
    path: Path, output: Path, choice: StageFilter, overrides: list[str], *, resume: ResumeChoice
) -> None:
    """Run the selected stages over seeds, write `scenarios.json` and `scenarios.md`, and print the tables."""
    plans = load_bench(path, output, choice, overrides)
    from motet.experiments.bench_scenarios import result_tables, run_scenarios

    console, tables = Terminal(), []
    for results in run_scenarios(plans, output, _resume_command(path, output, choice, overrides), resume=resume):
        tables = result_tables(results)
        write_results(output / "scenarios.json", asdict(results))
        text = "\n".join(table.markdown() for table in tables)
        write_output("--output", output / "scenarios.md", text.encode())
    for table in tables if len(plans) > 1 else ():  # with one seed `run_plan` has printed them
        console.print(table)
    console.say(f"Tables: {output / 'scenarios.md'}")


def bench_step(recipe_path: Path, overrides: list[str], steps: int, warmup: int, json_path: Path | None) -> None:
    """Run some training steps and print their time and memory."""
    recipe = load_recipe(recipe_path, overrides)
    from motet.evaluation.bench_step import bench_step as measure

    console = Terminal()
    with ProgressBar(console) as bar:
        bar.steps = lambda: warmup + steps
        bar.phase("train")
        results = measure(recipe, steps, warmup, bar)
    table = Table(title=f"One step of {results.trajectories} trajectories on {results.device}", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    for phase, seconds in results.seconds.items():
        table.add_row(f"{phase}, s", f"{seconds:.2f}")
    table.add_row("whole step, s", f"{results.step_seconds:.2f}")
    table.add_row("images/s over the whole step", f"{results.images_per_second:.3g}")
    table.add_row("actions/s over the whole step", f"{results.actions_per_second:.3g}")
    table.add_row("actions/s of the rollout", f"{results.rollout_actions_per_second:.3g}")
    for phase, gigabytes in results.peak_gb_by_phase.items():
        table.add_row(f"peak memory of {phase}, GB", f"{gigabytes:.2f}")
    table.add_row("peak memory, GB", f"{results.peak_gb:.2f}")
    table.add_row("trainable params, M", f"{results.num_trainable / 1e6:,.1f}")
    show_results(table, asdict(results), json_path)


def bench_rewards_overlap(
    recipe_path: Path, overrides: list[str], delay: float, steps: int, json_path: Path | None, **runs: int
) -> None:
    """Run a recipe in pairs of runs, without and with overlap, and print what of the rewards' time is hidden."""
    recipe = load_recipe(recipe_path, overrides)
    from motet.evaluation.bench_overlap import bench_overlap as measure

    with ProgressBar(Terminal()) as bar:
        bar.steps = lambda: runs["warmup"] + steps
        results = measure(recipe, delay, steps, callback=bar, **runs)
    show_results(overlap_table(results), asdict(results), json_path)


def bench_learner(
    tasks: Sequence[str], betas: Sequence[float], shape: Mapping[str, int], repeats: int, json_path: Path | None
) -> None:
    """Compare training steps with other systems' and print a row per task and phase."""
    from motet.evaluation.bench_learner import bench_learner as measure
    from motet.evaluation.bench_logprobs import bench_logprob_memory
    from motet.evaluation.bench_models import BenchSizes, StepShape

    kinds = [(task, beta) for task in ("text", "image") if task in tasks for beta in betas]
    console = Terminal()
    with ProgressBar(console) as bar:
        done, total = 0, len(kinds) * (1 + repeats)
        bar.phase("step")

        def on_step() -> None:
            nonlocal done
            done += 1
            bar.items("step", done, total)

        rows = [measure(task, StepShape(**shape, beta=beta), BenchSizes(), repeats, on_step) for task, beta in kinds]
    memory: list[dict[str, Any]] = []
    if "memory" in tasks:
        with waiting("memory of log-probs"):
            memory = [asdict(row) for row in bench_logprob_memory()]
    tables = [learner_table(rows)] * bool(rows) + [memory_table(memory)] * bool(memory)
    show_results(Group(*tables), {"machine": describe_machine(), "steps": rows, "memory": memory}, json_path)


def bench_scaling(repeats: int, json_path: Path | None, plot: Path | None, table: Path | None) -> None:
    """Measure every point, print the table, and write JSON, plot and Markdown."""
    from motet.evaluation.bench_scaling import bench_scaling as measure
    from motet.evaluation.bench_scaling import doublings
    from motet.evaluation.scaling_plot import plot_scaling, scaling_markdown

    with ProgressBar(Terminal()) as bar:
        bar.phase("point")
        rows = measure(repeats, on_point=lambda done, total: bar.items("point", done, total))
    results = {"machine": describe_machine(), "rows": rows, "doubling_generations": doublings(rows, "generations")}
    show_results(scaling_table(rows), results, json_path)
    if table is not None:
        write_output("--table", table, scaling_markdown(rows).encode())
    if plot is not None:
        plot_scaling(rows, plot)


def _resume_command(path: Path, output: Path, choice: StageFilter, overrides: Sequence[str]) -> str:
    """The shell command that resumes the benchmark."""
    options = [
        *(("--seed", str(seed)) for seed in choice.seeds),
        *(("--only", name) for name in choice.only),
        *(("--policy", name) for name in choice.policies),
        *(() if choice.budget is None else (("--budget", str(choice.budget)),)),
    ]
    flags = [text for option in options for text in option]
    return shlex.join(
        ["motet", "bench", "scenarios", *overrides, "--plan", str(path), *flags, "--output", str(output), "--resume"]
    )


def rewards_table(results: Sequence[Agreement]) -> Table:
    """One row per reward: mean and std, correlation over all and within groups, and pairwise accuracy."""
    trusted = ", ".join(sorted({row.trusted for row in results}))
    table = Table(title=f"Agreement with {trusted}", title_justify="left")
    table.add_column("reward", overflow="fold")
    for heading in ("mean", "pooled\ncorr.", "within-group\ncorr.", "pairwise\nacc."):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in results:
        name = f"{row.track}: {row.reward}" if row.track else row.reward
        within, accuracy = row.within_group_correlation, [100 * value for value in row.pairwise_accuracy]
        table.add_row(
            name,
            f"{row.mean:.2f}\u00b1{row.std:.2f}",
            f"{row.pooled_correlation[0]:.2f}",
            f"{within[0]:.2f} [{within[1]:.2f}, {within[2]:.2f}]",
            f"{accuracy[0]:.0f} % [{accuracy[1]:.0f}, {accuracy[2]:.0f}]",
        )
    counts = " and ".join(str(count) for count in sorted({row.num_rollouts for row in results}))
    table.caption = (
        f"{counts} rollouts. Pairwise accuracy: pairs of a group that the trusted reward ranks differently; 50 % is "
        "chance. In brackets 95 % intervals over groups."
    )
    return table


def rollout_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Sequences per second of both sides, the speedup with its extremes, and the overhead over the lower bound."""
    table = Table(title="Sequences per second, same weights and same tokens", title_justify="left")
    table.add_column("task", no_wrap=True)
    for heading in ("batch", "motet", "trans-\nformers", "speedup", "min", "max", "over-\nhead"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        guided = "" if row["guidance_scale"] is None else f", guided {row['guidance_scale']:g}"
        speeds = [f"{row[key]:.1f}" for key in ("per_second", "baseline_per_second")]
        ratios = [f"{row[key]:.2f}" for key in ("ratio", "ratio_low", "ratio_high")]
        overhead = f"{row['overhead_ratio']:.2f}"
        table.add_row(f"{row['task']}{guided}", str(row["batch"]), *speeds, *ratios, overhead)
    baselines = sorted({row["baseline"] for row in rows})
    targets = {row["batch"]: row["target"] for row in rows if row["target"] is not None}
    goals = "".join(f"; target at batch {batch}, guided: {target:g}" for batch, target in targets.items())
    table.caption = (
        f"transformers: {', '.join(baselines)}; overhead: our time divided by that of the matrix products alone{goals}"
    )
    return table
