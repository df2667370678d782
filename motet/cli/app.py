"""The commands and their options. The implementations are in this package's other modules, imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motet.cli.bench_commands import bench
from motet.cli.eval_command import evaluate
from motet.cli.options import (
    DATA_IMAGE,
    Checkpoint,
    Json,
    OnlySeeds,
    OnlyStages,
    OnlyStrategies,
    Output,
    Overrides,
    Overwrite,
    Parallel,
    PrintableGroup,
    RecipePath,
    ResumableCommand,
    Resume,
    ResumeMode,
    Seed,
    ShardGb,
    SkipPreflight,
    Stage,
    Timeout,
)
from motet.cli.outputs import IMAGE_FORMATS, check_output
from motet.cli.ray_options import (
    GpusPerActor,
    MaxStaleness,
    RayAddress,
    RewardActors,
    RolloutActors,
    TrainWorkers,
    ray_options,
)
from motet.cli.report_command import report
from motet.cli.reward_commands import reward, rewards
from motet.cli.serve import serve
from motet.cli.share_commands import card, demo, push
from motet.cli.studio import studio

app = typer.Typer(
    cls=PrintableGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(requested: bool | None) -> bool:
    if requested:
        from importlib.metadata import version

        from motet.report.terminal import say

        say(f"motet {version('motet')}")
        raise typer.Exit
    return False


@app.callback()
def motet(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """RL post-training of unified multimodal models (understanding and generation)."""


@app.command(cls=ResumableCommand)
def train(
    recipe: RecipePath,
    output: Output,
    overrides: Overrides = None,
    resume: Resume = ResumeMode.NO,
    only: OnlyStages = None,
    *,
    ray: RayAddress = None,
    train_workers: TrainWorkers = None,
    rollout_actors: RolloutActors = None,
    reward_actors: RewardActors = None,
    max_staleness: MaxStaleness = None,
    gpus_per_actor: GpusPerActor = None,
    parallel: Parallel = None,
    timeout: Timeout = None,
    skip_preflight: SkipPreflight = False,
) -> None:
    """Train a policy with RL. If RECIPE has several stages, run them in order."""
    from motet.cli.train import Launch
    from motet.cli.train import train as run

    given = {"train_workers": train_workers, "rollout_actors": rollout_actors, "reward_actors": reward_actors}
    given |= {"max_staleness": max_staleness, "gpus_per_actor": gpus_per_actor}
    where, launch = ray_options(ray, given, timeout), Launch(parallel, timeout, not skip_preflight)
    settings = {"ray": where, "launch": launch, "max_staleness": max_staleness or 0}
    run(recipe, output, overrides or [], resume.choice, only or (), **settings)


@app.command(cls=ResumableCommand)
def sft(
    recipe: RecipePath,
    output: Output,
    overrides: Overrides = None,
    resume: Resume = ResumeMode.NO,
    *,
    parallel: Parallel = None,
    timeout: Timeout = None,
    skip_preflight: SkipPreflight = False,
) -> None:
    """Supervised fine-tuning (SFT)."""
    from motet.cli.train import Launch
    from motet.cli.train import sft as run

    run(recipe, output, overrides or [], resume.choice, Launch(parallel, timeout, not skip_preflight))


@app.command(cls=ResumableCommand)
def sweep(
    path: RecipePath,
    output: Output,
    overrides: Overrides = None,
    resume: Resume = ResumeMode.NO,
    only: OnlyStrategies = None,
    seeds: OnlySeeds = None,
) -> None:
    """Run several training strategies over seeds and compare them at equal sample budget."""
    from motet.cli.train import sweep as run

    run(path, output, overrides or [], resume.choice, only or (), seeds or ())


app.command("eval")(evaluate)


@app.command()
def sample(
    checkpoint: Checkpoint,
    prompt: Annotated[str, typer.Argument(help="The prompt.")],
    *,
    n: Annotated[int, typer.Option("--n", min=1, help="Number of images.")] = 8,
    out: Annotated[Path, typer.Option("--out", help="Image file to write: .png, .jpg or .webp.")] = Path("grid.png"),
    overwrite: Overwrite = False,
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")] = 1.0,
    guidance_scale: Annotated[float, typer.Option(min=1.0, help="Guidance scale; 1 disables guidance.")] = 1.0,
    seed: Seed = 0,
) -> None:
    """Generate several images of a prompt and save them as a grid."""
    check_output("--out", out, overwrite=overwrite, suffixes=IMAGE_FORMATS)
    from motet.cli.inference import sample as run

    run(checkpoint, prompt, n, out, seed=seed, temperature=temperature, guidance_scale=guidance_scale)


@app.command()
def ask(
    checkpoint: Checkpoint,
    image: Annotated[Path, typer.Argument(help="An image file.")],
    question: Annotated[str, typer.Argument(help="A question about the image.")],
    *,
    temperature: Annotated[float, typer.Option(min=0.0, help="Sampling temperature; 0 is greedy.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of the answer.")] = 128,
    seed: Seed = 0,
) -> None:
    """Ask a question about an image."""
    from motet.cli.inference import ask as run

    run(checkpoint, image, question, temperature, max_tokens, seed)


@app.command("serve-rewards")
def serve_rewards(
    path: Annotated[Path, typer.Argument(metavar="CONFIG", help="A reward service (YAML): rewards, host, port, ...")],
    overrides: Overrides = None,
) -> None:
    """Serve rewards over HTTP: see docs/how-to/reward-services.md."""
    from motet.cli.serve_rewards import serve_rewards as run

    run(path, overrides or [])


@app.command()
def merge(
    models: Annotated[
        list[Path], typer.Argument(help="Checkpoints, LoRA adapters or run folders; one adapter for --method average.")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", help="New folder to write.")],
    base: Annotated[Path | None, typer.Option("--base", help="Checkpoint that the models were trained from.")] = None,
    method: Annotated[str, typer.Option(help="gaussian (two models), average (takes no base), or norm.")] = "gaussian",
    shard_gb: ShardGb = 2.0,
) -> None:
    """Merge the weights of models trained from the same base."""
    from motet.cli.merge import merge as run

    run(models, base, method, out, shard_gb)


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(help="A Janus checkpoint in DeepSeek's or transformers' layout, or a run folder.")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", help="New folder to write, in the other layout.")],
    preset: Annotated[
        str | None,
        typer.Option(help="Size of a DeepSeek checkpoint without config.json: Janus-1.3B, Janus-Pro-1B, Janus-Pro-7B."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Read the result back and compare it bit by bit.")] = False,
    shard_gb: ShardGb = 2.0,
) -> None:
    """Convert a Janus checkpoint between DeepSeek's and transformers' layout."""
    from motet.cli.convert import convert as run

    run(source, out, preset, check, shard_gb)


@app.command()
def curate(
    questions: Annotated[Path, typer.Argument(help="Questions: image, question, solution; options, entities.")],
    captions: Annotated[Path, typer.Argument(help="Captions: image, caption; or COCO's captions file.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="New .jsonl or .parquet file to write.")],
    images: Annotated[
        str | None, typer.Option(help="Path of the images, e.g. train2017/{image:0>12}.jpg; default: ids only.")
    ] = None,
    min_coverage: Annotated[float, typer.Option(min=0.0, max=1.0, help="Minimum entity coverage.")] = 0.0,
    keep_without_entities: Annotated[
        bool,
        typer.Option(
            "--keep-without-entities/--drop-without-entities", help="Keep or drop rows whose solution has no entities."
        ),
    ] = True,
) -> None:
    """Pair questions with captions that contain the entities of their solutions, as rows for CoRL."""
    from motet.cli.curate import run

    run(questions, captions, out, images=images, min_coverage=min_coverage, keep_without_entities=keep_without_entities)


@app.command()
def config(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (YAML).")] = None,
    overrides: Overrides = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every key with its type, default and meaning.")] = False,
    scenarios: Annotated[bool, typer.Option("--scenarios", help="List the built-in scenarios.")] = False,
) -> None:
    """Print the resolved recipe, or list all keys or scenarios."""
    from motet.cli.info import show_config

    show_config(recipe, overrides or [], keys, scenarios)


@app.command("data")
def show_data(
    recipe: RecipePath,
    overrides: Overrides = None,
    *,
    show: Annotated[int, typer.Option(min=1, help="Number of rows.")] = 8,
    split: Annotated[str | None, typer.Option(help="Split of the data; default: the recipe's.")] = None,
    stage: Stage = None,
    out: Annotated[
        Path, typer.Option("--out", help="Image file for the rows' images: .png, .jpg, .webp.")
    ] = DATA_IMAGE,
    overwrite: Overwrite = False,
) -> None:
    """Check all rows; show the first, tokenised prompts, images after the image tokenizer, rewards of gold answers."""
    again = out == DATA_IMAGE  # the command is repeated until the data is right
    check_output("--out", out, overwrite=overwrite or again, suffixes=IMAGE_FORMATS)
    from motet.cli.data import show_data as run

    run(recipe, overrides or [], count=show, split=split, stage=stage, out=out)


@app.command()
def estimate(
    recipe: RecipePath,
    overrides: Overrides = None,
    *,
    gpus: Annotated[
        list[int] | None, typer.Option("--gpus", min=1, help="Number of GPUs; default: 1. Repeatable.")
    ] = None,
    gpu: Annotated[
        str, typer.Option("--gpu", help="h100, h200, a100-80gb, a100-40gb, l40s, rtx4090, or cpu (measured here).")
    ] = "h100",
    parallel: Annotated[str, typer.Option(help="replicas (all weights on every GPU) or fsdp (sharded).")] = "replicas",
    stage: Stage = None,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a prompt, template included.")] = 64,
    text_tokens: Annotated[
        int | None, typer.Option(min=1, help="Mean tokens of a text; default: half of sampling.text.max_tokens.")
    ] = None,
    images_per_row: Annotated[int, typer.Option(min=0, help="Input images of a row, where they are shown.")] = 1,
    reward_seconds: Annotated[float, typer.Option(min=0.0, help="Seconds to score one trajectory.")] = 0.0,
    calibrate: Annotated[
        Path | None, typer.Option(help="JSON of motet bench step or gpu_check.sh for this recipe on one GPU.")
    ] = None,
    json_path: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Memory by part and seconds by phase of a training step, before launch. Exit status 1: it does not fit.

    policy.path may be a folder that holds config.json alone, or the name of a published Janus (Janus-Pro-1B).
    """
    check_output("--json", json_path, overwrite=overwrite)
    from motet.cli.estimate import estimate as run

    lengths = {"prompt": prompt_tokens, "text": text_tokens, "images": images_per_row}
    options = {"gpus": tuple(gpus or [1]), "gpu": gpu, "parallel": parallel, "lengths": lengths}
    options |= {"reward_seconds": reward_seconds, "calibrate": calibrate}
    if not run(recipe, overrides or [], stage, json_path, options):
        raise typer.Exit(1)


@app.command()
def doctor(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (YAML) of motet train or motet sft.")] = None,
    overrides: Overrides = None,
    *,
    stage: Stage = None,
    sft: Annotated[bool, typer.Option("--sft", help="RECIPE is for motet sft.")] = False,
) -> None:
    """Check the installation; or, with RECIPE, check with a tiny step whether a run would train. Exit status 1: no."""
    if recipe is None:
        from motet.cli.info import doctor as run

        run()
        return
    from motet.cli.doctor import check_recipe

    if not check_recipe(recipe, overrides or [], stage, supervised=sft):
        raise typer.Exit(1)


app.command()(report)
app.command()(rewards)
app.add_typer(reward, name="reward")
app.command()(serve)
app.command()(studio)
app.command()(card)
app.command()(push)
app.command(cls=ResumableCommand)(demo)
app.add_typer(bench, name="bench")
