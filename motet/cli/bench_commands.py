"""The commands below `motet bench` and their options."""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from motet.cli.options import Json, Overrides, Overwrite, RecipePath, ResumableCommand, Resume, ResumeMode
from motet.cli.outputs import check_output
from motet.core.errors import ConfigError

bench = typer.Typer(no_args_is_help=True, help="Benchmarks of speed, rewards and scenarios.")


class Device(StrEnum):
    """Where `motet bench rollout` runs."""

    CPU = "cpu"
    CUDA = "cuda"


class Engine(StrEnum):
    """The samplers of motet: see docs/decisions/0008."""

    EAGER = "eager"
    STATIC = "static"


@bench.command("rollout")
def bench_rollout(
    checkpoint: Annotated[
        str | None, typer.Argument(help="A Janus checkpoint or run folder; default: a tiny random model.")
    ] = None,
    batch_sizes: Annotated[list[int] | None, typer.Option("--batch", help="Batch size. Repeatable.")] = None,
    guidance_scale: Annotated[float, typer.Option(min=1.0, help="Guidance scale of the image benchmark.")] = 5.0,
    repeats: Annotated[int, typer.Option(min=1, help="Number of interleaved repetitions.")] = 5,
    *,
    device: Annotated[Device, typer.Option(help="Where both sides run.")] = Device.CPU,
    engine: Annotated[Engine | None, typer.Option(help="Our sampler; default: static on cuda, eager on cpu.")] = None,
    json_path: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Throughput of the sampler vs transformers generate() at identical settings."""
    check_output("--json", json_path, overwrite=overwrite)
    from motet.cli.bench import bench_rollout as run

    run(checkpoint, batch_sizes or [16, 64], guidance_scale, repeats, json_path, device=device, engine=engine)


@bench.command("rewards")
def bench_rewards(
    recipe: RecipePath,
    overrides: Overrides = None,
    *,
    rollouts: Annotated[int, typer.Option(min=1, help="Rollout batches per track, of the recipe's size.")] = 4,
    trusted: Annotated[str | None, typer.Option(help="The trusted reward; default: the first of each track.")] = None,
    json_path: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Correlation of each reward with a trusted reward, before training."""
    check_output("--json", json_path, overwrite=overwrite)
    from motet.cli.bench import bench_rewards as run

    run(recipe, overrides or [], rollouts, trusted, json_path)


@bench.command("scenarios", cls=ResumableCommand)
def bench_scenarios(
    overrides: Overrides = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("runs/scenarios"),
    plan: Annotated[Path, typer.Option(help="A recipe (YAML) with one stage per scenario and policy.")] = Path(
        "recipes/shapes_scenarios.yaml"
    ),
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Seed; default: 0. Repeatable.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Scenario or stage; default: all. Repeatable.")] = None,
    policies: Annotated[
        list[str] | None, typer.Option("--policy", help="Name of a checkpoint, e.g. shapes_janus. Repeatable.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(min=1, help="Trajectories per stage; default: the stage's steps.")
    ] = None,
    resume: Resume = ResumeMode.NO,
) -> None:
    """All scenarios before and after RL, from their SFT checkpoints and at equal budget."""
    from motet.cli.bench import bench_scenarios as run
    from motet.config.bench_scenarios import StageFilter

    choice = StageFilter(tuple(seeds or [0]), tuple(only or ()), tuple(policies or ()), budget)
    run(plan, output, choice, overrides or [], resume=resume.choice)


@bench.command("step")
def bench_step(
    recipe: RecipePath,
    overrides: Overrides = None,
    *,
    steps: Annotated[int, typer.Option(min=1, help="Number of timed steps.")] = 3,
    warmup: Annotated[int, typer.Option(min=0, help="Number of untimed steps before them.")] = 1,
    json_path: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Seconds per phase, images/s and peak memory of a recipe's training steps; no results are kept."""
    check_output("--json", json_path, overwrite=overwrite)
    from motet.cli.bench import bench_step as run

    run(recipe, overrides or [], steps, warmup, json_path)


@bench.command("rewards-overlap")
def bench_rewards_overlap(
    recipe: RecipePath,
    overrides: Overrides = None,
    *,
    delay: Annotated[
        float, typer.Option(min=0.0, help="Seconds that an added reward of weight 0 sleeps in every step.")
    ] = 0.0,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of each run.")] = 8,
    warmup: Annotated[int, typer.Option(min=1, help="Untimed steps before them.")] = 2,
    repeats: Annotated[int, typer.Option(min=1, help="Pairs of runs, without and with overlap.")] = 3,
    json_path: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Share of the rewards' time that --max-staleness 1 hides behind sampling and training."""
    check_output("--json", json_path, overwrite=overwrite)
    from motet.cli.bench import bench_rewards_overlap as run

    run(recipe, overrides or [], delay, steps, json_path, warmup=warmup, repeats=repeats)


class LearnerTask(StrEnum):
    """What `motet bench learner` measures."""

    TEXT = "text"
    IMAGE = "image"
    MEMORY = "memory"


@bench.command("learner")
def bench_learner(
    *,
    tasks: Annotated[
        list[LearnerTask] | None, typer.Option("--task", help="What to measure; default: all. Repeatable.")
    ] = None,
    betas: Annotated[
        list[float] | None, typer.Option("--beta", min=0.0, help="Coefficient of the KL; default: 0. Repeatable.")
    ] = None,
    prompts: Annotated[int, typer.Option(min=1, help="Prompts per step.")] = 4,
    generations: Annotated[int, typer.Option(min=2, help="Generations per prompt.")] = 8,
    prompt_tokens: Annotated[int, typer.Option(min=1, max=1024, help="Tokens per prompt.")] = 64,
    tokens: Annotated[int, typer.Option(min=1, max=512, help="Tokens per generated text.")] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="Number of interleaved repetitions.")] = 5,
    json_path: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Training steps vs TRL's GRPOTrainer (text) and an eager loop (image); memory vs the size of the vocabulary."""
    check_output("--json", json_path, overwrite=overwrite)
    from motet.cli.bench import bench_learner as run

    shape = {"prompts": prompts, "generations": generations, "prompt_tokens": prompt_tokens, "tokens": tokens}
    run(tasks or list(LearnerTask), betas or [0.0], shape, repeats, json_path)


@bench.command("scaling")
def bench_scaling(
    *,
    repeats: Annotated[int, typer.Option(min=1, help="Number of timed steps per point.")] = 3,
    plot: Annotated[Path | None, typer.Option(help="Plot of the curves to write (.svg or .png).")] = None,
    table: Annotated[Path | None, typer.Option(help="Markdown table to write.")] = None,
    json_path: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Time and memory of a step vs group size, prompts, image tokens and prompt length."""
    for option, path in (("--json", json_path), ("--plot", plot), ("--table", table)):
        check_output(option, path, overwrite=overwrite)
    if plot is not None and find_spec("matplotlib") is None:  # now, not after all points
        raise ConfigError("--plot needs matplotlib.", fix="pip install 'motet[plots]'.")
    from motet.cli.bench import bench_scaling as run

    run(repeats, json_path, plot, table)
