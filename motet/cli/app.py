"""The commands and their arguments; what they do is in the modules beside this one, imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motet.cli.outputs import IMAGE_FORMATS, refuse_output

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

RecipePath = Annotated[Path, typer.Argument(help="A recipe (YAML).")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Changes to it: key.subkey=value ...")]
Output = Annotated[Path, typer.Option("--output", "-o", help="Run folder to write.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in that folder.")]
Checkpoint = Annotated[str, typer.Argument(help="A checkpoint folder, a run folder, or a hub id.")]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the sampling.")]
Json = Annotated[Path | None, typer.Option("--json", help="Write the numbers here.")]
Stage = Annotated[str | None, typer.Option(help="Stage of a plan whose recipe is meant.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the file that is to be written.")]
ShardGb = Annotated[float, typer.Option("--shard-gb", min=0.001, help="Largest weight file, in GB; held in memory.")]


def _version(asked: bool | None) -> bool:
    if asked:
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
    """Reinforcement-learning post-training of models that both read and draw."""


@app.command()
def train(
    recipe: RecipePath,
    output: Output,
    overrides: Overrides = None,
    resume: Resume = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Stage of a plan, with those it goes on from; may be repeated. None: all.")
    ] = None,
) -> None:
    """Train a policy by reinforcement learning; a plan: stage after stage."""
    from motet.cli.train import train as run

    run(recipe, output, overrides or [], resume, only or ())


@app.command()
def sft(recipe: RecipePath, output: Output, overrides: Overrides = None, resume: Resume = False) -> None:
    """Train a policy on demonstrations."""
    from motet.cli.train import sft as run

    run(recipe, output, overrides or [], resume)


@app.command()
def pilot(study: RecipePath, output: Output, overrides: Overrides = None, resume: Resume = False) -> None:
    """Run strategies over seeds on one budget, and compare them."""
    from motet.cli.train import pilot as run

    run(study, output, overrides or [], resume)


@app.command("eval")
def evaluate(
    checkpoint: Checkpoint,
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe (YAML): measure with its rewards, on its data.")
    ] = None,
    overrides: Overrides = None,
    *,
    data: Annotated[str | None, typer.Option(help="File or dataset to measure on; none: the recipe's own.")] = None,
    split: Annotated[str | None, typer.Option(help="Split to measure on; none: the recipe's eval.suite.split.")] = None,
    stage: Stage = None,
    suite: Annotated[str | None, typer.Option(help="Without a recipe: which suite (shapes).")] = None,
    json_path: Json = None,
    overwrite: Overwrite = False,
    size: Annotated[int | None, typer.Option(min=1, help="Held-back items; none: 2048, or the recipe's.")] = None,
    held_out_size: Annotated[int | None, typer.Option(min=1, help="Items of held-out compositions; none: 512.")] = None,
    pass_at: Annotated[int | None, typer.Option(min=1, help="Samples per item; none: 8, or the recipe's.")] = None,
    guidance_scale: Annotated[
        float | None, typer.Option(min=1.0, help="Guidance of the suite's drawings; 1 or none: off.")
    ] = None,
    num_steps: Annotated[
        int | None, typer.Option(min=2, help="Steps of a drawing by denoising; none: 10, or the recipe's.")
    ] = None,
    noise_level: Annotated[
        float | None, typer.Option(help="Noise of those steps, but for the greedy drawing; none: 0.7, or the recipe's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of items and sampling; none: 1234, or the recipe's.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest answer in tokens; none: 64, or the recipe's.")
    ] = None,
    world: Annotated[
        list[str] | None, typer.Option("--world", help="Option of the shapes world, canvas=64; may be repeated.")
    ] = None,
) -> None:
    """Measure a checkpoint: by the shapes suite, or with a recipe's rewards on rows of your own."""
    refuse_output("--json", json_path, overwrite=overwrite)
    from motet.cli.eval import Asked, evaluate_recipe, evaluate_suite

    settings = {
        "eval.size": size,
        "eval.samples_per_item": pass_at,
        "eval.seed": seed,
        "sampling.text.max_tokens": max_tokens,
        "sampling.denoising.num_steps": num_steps,
        "sampling.denoising.noise_level": noise_level,
    }
    alone = {"--held-out-size": held_out_size, "--guidance-scale": guidance_scale, "--world": world, "--suite": suite}
    asked = Asked(checkpoint, settings, alone, json_path)
    if recipe is None:
        evaluate_suite(asked, {"--data": data, "--split": split, "--stage": stage})
    else:
        evaluate_recipe(asked, recipe, overrides or [], data=data, split=split, stage=stage)


@app.command()
def sample(
    checkpoint: Checkpoint,
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    *,
    n: Annotated[int, typer.Option("--n", min=1, help="How many pictures.")] = 8,
    out: Annotated[Path, typer.Option("--out", help="Picture to write: .png, .jpg or .webp.")] = Path("grid.png"),
    overwrite: Overwrite = False,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 1.0,
    guidance_scale: Annotated[float, typer.Option(min=1.0, help="Above 1: classifier-free guidance.")] = 1.0,
    seed: Seed = 0,
) -> None:
    """Draw a prompt several times into one picture grid."""
    refuse_output("--out", out, overwrite=overwrite, suffixes=IMAGE_FORMATS)
    from motet.cli.inference import sample as run

    run(checkpoint, prompt, n, out, seed=seed, temperature=temperature, guidance_scale=guidance_scale)


@app.command()
def ask(
    checkpoint: Checkpoint,
    image: Annotated[Path, typer.Argument(help="A picture file.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    *,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer in tokens.")] = 128,
    seed: Seed = 0,
) -> None:
    """Ask a question about a picture."""
    from motet.cli.inference import ask as run

    run(checkpoint, image, question, temperature, max_tokens, seed)


@app.command()
def merge(
    models: Annotated[list[Path], typer.Argument(help="Checkpoints, LoRA adapters or run folders, two or more.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="New folder to write.")],
    base: Annotated[Path | None, typer.Option("--base", help="What the models were trained from.")] = None,
    method: Annotated[str, typer.Option(help="gaussian (two models), average (takes no base), or norm.")] = "gaussian",
    shard_gb: ShardGb = 2.0,
) -> None:
    """Merge the weights of models that were trained from one base."""
    from motet.cli.merge import merge as run

    run(models, base, method, out, shard_gb)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A Janus in DeepSeek's layout or in transformers', or a run folder.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="New folder to write, in the other layout.")],
    preset: Annotated[
        str | None,
        typer.Option(help="Size of an original without config.json: Janus-1.3B, Janus-Pro-1B, Janus-Pro-7B."),
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Read everything back and compare bits.")] = False,
    shard_gb: ShardGb = 2.0,
) -> None:
    """Convert a Janus between DeepSeek's layout and transformers'."""
    from motet.cli.convert import convert as run

    run(source, out, preset, check, shard_gb)


@app.command()
def curate(
    questions: Annotated[Path, typer.Argument(help="Questions: image, question, solution; options, entities.")],
    captions: Annotated[Path, typer.Argument(help="Captions: image, caption; or COCO's captions file.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="New .jsonl or .parquet file to write.")],
    images: Annotated[
        str | None, typer.Option(help="Where pictures are: train2017/{image:0>12}.jpg; none: only their ids.")
    ] = None,
    min_coverage: Annotated[float, typer.Option(min=0.0, max=1.0, help="Leave out rows that cover less.")] = 0.0,
    no_entities: Annotated[str, typer.Option(help="Solutions without entities: keep or drop.")] = "keep",
) -> None:
    """Pair questions with the captions that cover their solutions, as rows for CoRL."""
    from motet.cli.curate import run

    run(questions, captions, out, images=images, min_coverage=min_coverage, no_entities=no_entities)


@app.command()
def config(
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (YAML).")] = None,
    overrides: Overrides = None,
    keys: Annotated[bool, typer.Option("--keys", help="List every key with its type, default and meaning.")] = False,
    rewards: Annotated[bool, typer.Option("--rewards", help="List the built-in rewards.")] = False,
    scenarios: Annotated[bool, typer.Option("--scenarios", help="List the built-in scenarios.")] = False,
) -> None:
    """Print the resolved recipe, or what a recipe may say."""
    from motet.cli.info import show_config

    show_config(recipe, overrides or [], keys, rewards, scenarios)


@app.command("data")
def show_data(
    recipe: RecipePath,
    overrides: Overrides = None,
    *,
    show: Annotated[int, typer.Option(min=1, help="How many rows.")] = 8,
    split: Annotated[str | None, typer.Option(help="Split of the data; none: the recipe's.")] = None,
    stage: Stage = None,
    out: Annotated[Path, typer.Option("--out", help="File for the rows' pictures: .png, .jpg, .webp.")] = Path(
        "data.png"
    ),
    overwrite: Overwrite = False,
) -> None:
    """Show rows, prompts as the policy reads them, pictures through the image tokenizer, rewards of gold answers."""
    refuse_output("--out", out, overwrite=overwrite, suffixes=IMAGE_FORMATS)
    from motet.cli.data import show_data as run

    run(recipe, overrides or [], count=show, split=split, stage=stage, out=out)


@app.command()
def doctor() -> None:
    """Tell what this machine has and what is missing, and play a tiny model once."""
    from motet.cli.info import doctor as run

    run()


bench = typer.Typer(no_args_is_help=True, help="Benchmarks: ratios measured in one run.")
app.add_typer(bench, name="bench")


@bench.command("rollout")
def bench_rollout(
    checkpoint: Annotated[
        str | None, typer.Argument(help="A Janus checkpoint or run folder; none: random weights of the tiny size.")
    ] = None,
    batch_sizes: Annotated[list[int] | None, typer.Option("--batch", help="Batch sizes; may be repeated.")] = None,
    guidance_scale: Annotated[float, typer.Option(min=1.0, help="Guidance of the image benchmark.")] = 5.0,
    repeats: Annotated[int, typer.Option(min=1, help="Interleaved repetitions.")] = 5,
    json_path: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Images/s and text samples/s beside transformers' generate, same weights, batch, guidance and outputs."""
    refuse_output("--json", json_path, overwrite=overwrite)
    from motet.cli.bench import bench_rollout as run

    run(checkpoint, batch_sizes or [16, 64], guidance_scale, repeats, json_path)


@bench.command("rewards")
def bench_rewards(
    recipe: RecipePath,
    overrides: Overrides = None,
    *,
    rollouts: Annotated[int, typer.Option(min=1, help="Rollouts per track, of the recipe's size.")] = 4,
    against: Annotated[str | None, typer.Option(help="The trusted reward; none: each track's first.")] = None,
    json_path: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """How a recipe's rewards agree with the one that is trusted, before anything is trained."""
    refuse_output("--json", json_path, overwrite=overwrite)
    from motet.cli.bench import bench_rewards as run

    run(recipe, overrides or [], rollouts, against, json_path)


@bench.command("scenarios")
def bench_scenarios(
    overrides: Overrides = None,
    *,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")] = Path("runs/scenarios"),
    plan: Annotated[Path, typer.Option(help="A plan (YAML) with a stage per scenario and policy.")] = Path(
        "recipes/shapes_scenarios.yaml"
    ),
    seeds: Annotated[list[int] | None, typer.Option("--seed", help="Seeds; may be repeated. None: 0.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Scenarios or stages; may be repeated. None: all.")] = None,
    policies: Annotated[
        list[str] | None, typer.Option("--policy", help="Checkpoints by name, shapes_janus; may be repeated.")
    ] = None,
    budget: Annotated[int | None, typer.Option(min=1, help="Trajectories per stage; none: the plan's steps.")] = None,
    resume: Resume = False,
) -> None:
    """The scenarios from their cold starts, before and after reinforcement learning on one budget."""
    from motet.cli.bench import bench_scenarios as run
    from motet.config.bench_scenarios import StageFilter

    choice = StageFilter(tuple(seeds or [0]), tuple(only or ()), tuple(policies or ()), budget)
    run(plan, output, choice, overrides or [], resume=resume)


@bench.command("step")
def bench_step(
    recipe: RecipePath,
    overrides: Overrides = None,
    *,
    steps: Annotated[int, typer.Option(min=1, help="Steps that are timed.")] = 3,
    warmup: Annotated[int, typer.Option(min=0, help="Steps before them.")] = 1,
    json_path: Json = None,
    overwrite: Overwrite = False,
) -> None:
    """Seconds by phase, images/s and peak memory of a recipe's training steps; nothing is kept."""
    refuse_output("--json", json_path, overwrite=overwrite)
    from motet.cli.bench import bench_step as run

    run(recipe, overrides or [], steps, warmup, json_path)
