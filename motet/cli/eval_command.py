"""The options of `motet eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motet.cli.eval_outputs import check_output_folder
from motet.cli.options import Checkpoint, Json, Overrides, Overwrite, Stage
from motet.cli.outputs import check_output


def evaluate(
    checkpoint: Checkpoint,
    recipe: Annotated[Path | None, typer.Argument(help="A recipe (YAML): its settings, and its rewards.")] = None,
    overrides: Overrides = None,
    *,
    data: Annotated[str | None, typer.Option(help="File or dataset to evaluate on; default: the recipe's.")] = None,
    split: Annotated[str | None, typer.Option(help="Split to evaluate on; default: the recipe's.")] = None,
    stage: Stage = None,
    suite: Annotated[
        str | None, typer.Option(help="Suites, such as geneval,dpg; default: shapes, or a recipe's rewards.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="Option of a suite: key=value, or SUITE.key=value. Repeatable.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for results.json, tables.txt and the images.")
    ] = None,
    json_path: Json = None,
    overwrite: Overwrite = False,
    size: Annotated[int | None, typer.Option(min=1, help="Validation items; default: 2048, or the recipe's.")] = None,
    held_out_size: Annotated[int | None, typer.Option(min=1, help="Held-out items; default: 512, or --size.")] = None,
    samples_per_item: Annotated[
        int | None,
        typer.Option("--samples-per-item", "--samples", min=1, help="Default: the suite's or recipe's."),
    ] = None,
    guidance_scale: Annotated[float | None, typer.Option(min=1.0, help="Classifier-free guidance; default: 1.")] = None,
    num_steps: Annotated[
        int | None, typer.Option(min=2, help="Denoising steps per image; default: 10, or the recipe's.")
    ] = None,
    noise_level: Annotated[
        float | None,
        typer.Option(help="SDE noise level; ignored for greedy (ODE) sampling; default: 0.7, or the recipe's."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of items and samples; default: 1234, or the recipe's.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Per answer; default: 64, or the recipe's.")] = None,
    world: Annotated[
        list[str] | None, typer.Option("--world", help="Option of the shapes world, e.g. canvas=64. Repeatable.")
    ] = None,
) -> None:
    """Evaluate a checkpoint with suites (benchmarks), or with a recipe's rewards on your own data."""
    check_output("--json", json_path, overwrite=overwrite)
    check_output_folder(output, overwrite=overwrite)
    from motet.cli.eval import EvalRequest, RecipeRequest, evaluate_recipe, evaluate_suites

    settings = {
        "eval.size": size,
        "eval.samples_per_item": samples_per_item,
        "eval.seed": seed,
        "sampling.text.max_tokens": max_tokens,
        "sampling.denoising.num_steps": num_steps,
        "sampling.denoising.noise_level": noise_level,
    }
    flags = {"--held-out-size": held_out_size, "--guidance-scale": guidance_scale, "--world": world}
    request = EvalRequest(checkpoint, settings, flags, option or (), json_path, output)
    given = None if recipe is None else RecipeRequest(recipe, overrides or (), stage)
    if given is not None and suite in (None, "rewards"):
        evaluate_recipe(request, given, data=data, split=split)
    else:
        evaluate_suites(request, suite, given, {"--data": data, "--split": split, "--stage": stage})
