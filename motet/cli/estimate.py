"""`motet estimate`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from motet.cli.outputs import write_results
from motet.config import Recipe
from motet.config.stages import load_plan, recipe_of
from motet.core.registry import is_object_path
from motet.report.terminal import Terminal, say

GIB = 2**30
OUTPUT = "OUTPUT"
"""Stands for the run folder of a plan, which estimates do not have."""


def estimate(
    recipe_path: Path, overrides: Sequence[str], stage: str | None, json_path: Path | None, options: Mapping[str, Any]
) -> bool:
    """Print memory by part, seconds by phase and, for several numbers of GPUs, how they scale; whether all fit.

    `options` are the fields of `motet.estimation.estimate.Launch`, and of `Lengths` below `lengths`.
    """
    recipe = _with_first_checkpoint(recipe_of(recipe_path, overrides, stage), recipe_path, stage)
    from motet.estimation.estimate import Launch
    from motet.estimation.estimate import estimate as run
    from motet.estimation.workload import Lengths
    from motet.report.progress import waiting

    with waiting("estimate"):
        found = run(recipe, Launch(**{**options, "lengths": Lengths(**options["lengths"])}))
    console, first = Terminal(), found.results[0]
    try:
        say("Estimated, not measured: " + "; ".join(found.assumptions) + ".")
        console.print(memory_table(first, found.device))
        console.print(time_table(first, found.device))
        if len(found.results) > 1:
            console.print(scaling_table(found.results))
        for result in found.results:
            say(verdict(result, found.device))
    finally:
        write_results(json_path, as_json(found))
    return found.fits


def _with_first_checkpoint(recipe: Recipe, path: Path, stage: str | None) -> Recipe:
    """A stage that starts from another's result is as large as the checkpoint that the first of them starts from."""
    if stage is None or is_object_path(recipe.policy.path):
        return recipe
    plan = load_plan(path, Path(OUTPUT))
    first = plan.stage(stage)
    if recipe.policy.path != first.recipe.policy.path:
        return recipe  # the overrides name a checkpoint
    while first.init_from:
        first = plan.stage(first.init_from[0])
    return recipe.model_copy(update={"policy": recipe.policy.model_copy(update={"path": first.recipe.policy.path})})


def memory_table(result: Any, device: Any) -> Table:
    """GiB of one rank by phase."""
    table = Table(title=f"Memory of one of {result.gpus} x {device.name}, GiB ({result.settings.parallel})")
    table.add_column("")
    phases = result.memory.phases
    for phase in phases:
        table.add_column(phase, justify="right")
    for part in dict.fromkeys(part for held in phases.values() for part in held):
        row = [held.get(part, 0.0) for held in phases.values()]
        if any(row):
            table.add_row(part, *("" if not value else f"{value / GIB:.2f}" for value in row))
    table.add_section()
    table.add_row("sum", *(f"{result.memory.total(phase) / GIB:.2f}" for phase in phases))
    return table


def time_table(result: Any, device: Any) -> Table:
    """Seconds of one rank by phase."""
    table = Table(title=f"Seconds of a step on {result.gpus} x {device.name}")
    for heading in ("phase", "part"):
        table.add_column(heading)
    table.add_column("seconds", justify="right")
    time = result.time
    for phase, parts in (("rollout", time.rollout), ("rewards", {}), ("learn", time.learn)):
        for part, seconds in parts.items():
            if seconds:
                table.add_row(phase, part, f"{seconds:.3g}")
        known = phase != "rewards" or time.rewards
        table.add_row(phase, "", f"{time.seconds[phase]:.3g}" if known else "not known", style="bold")
        table.add_section()
    table.add_row("step", "", f"{time.total:.3g}", style="bold")
    return table


def scaling_table(results: Sequence[Any]) -> Table:
    """Simulated steps: with the recipe's prompts, and with as many prompts per GPU as the first row has."""
    table = Table(title="Simulated: the recipe's prompts, and prompts that grow with the GPUs", title_justify="left")
    for heading in ("GPUs", "GiB", "P", "step, s", "traj./s", "busy", "wait", "idle", "comm."):
        table.add_column(heading, justify="right", no_wrap=True)
    for grown in (False, True):
        for result in results:
            one = result.grown if grown else result.simulated
            shares = (one.busy, one.waiting, one.idle, one.communicating)
            peak = "" if grown else f"{result.memory.peak / GIB:.0f}"
            numbers = (f"{one.seconds:.3g}", f"{one.trajectories_per_second:.3g}")
            table.add_row(
                str(one.ranks), peak, str(one.groups), *numbers, *(f"{100 * share:.0f} %" for share in shares)
            )
        table.add_section()
    table.caption = (
        "P: prompts per step. Shares of all GPUs' time: wait for slower ranks, idle without a group, comm. that "
        "nothing hides."
    )
    return table


def verdict(result: Any, device: Any) -> str:
    """Whether it fits, by how much, and what to change."""
    peak, memory = result.memory.peak / GIB, device.memory / GIB
    where = f"{result.gpus} GPU(s): the phase {result.memory.peak_phase} needs {peak:.1f} GiB with reserve"
    if result.fits:
        return f"{where}; fits into {memory:.1f} GiB with {memory - peak:.1f} GiB to spare."
    text = f"{where}; does not fit into {memory:.1f} GiB, by {result.missing_bytes / GIB:.1f} GiB."
    if result.changes and result.enough:
        return f"{text} It would with: {' '.join(result.changes)}"
    lora = "train adapters (policy.lora), take more GPUs with --parallel fsdp, or GPUs with more memory"
    tried = f" even with {' '.join(result.changes)}" if result.changes else ""
    return f"{text} Smaller batches do not suffice{tried}: {lora}."


def as_json(found: Any) -> dict[str, Any]:
    """Everything, in bytes and seconds."""
    results = [
        {
            **asdict(result),
            "memory": {**asdict(result.memory), "peak": result.memory.peak, "peak_phase": result.memory.peak_phase},
            "time": {**asdict(result.time), "seconds": result.time.seconds, "total": result.time.total},
        }
        for result in found.results
    ]
    size = {
        "family": found.size.family,
        "parameters": found.size.parameters,
        "trainable": found.size.trainable,
        "parts": {name: asdict(part) for name, part in found.size.parts.items()},
    }
    return {
        "device": asdict(found.device),
        "model": size,
        "acts": [asdict(load) for load in found.loads],
        "assumptions": list(found.assumptions),
        "fits": found.fits,
        "results": results,
    }
