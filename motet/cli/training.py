"""`motet train` and `motet sft` up to the first heavy import: what is wrong with a recipe or a folder shows at once."""

from __future__ import annotations

import shlex
from pathlib import Path

from motet.config import load_recipe
from motet.report.folder import RunFolder
from motet.report.resuming import refuse_changes


def train(recipe_path: Path, output: Path, overrides: list[str], resume: bool) -> None:
    """Measure, train, measure again; leave the run folder and say what to try next."""
    recipe = load_recipe(recipe_path, overrides)
    folder = RunFolder(output, resume=resume)
    refuse_changes(folder, recipe)
    from motet.cli.runs import run_training

    run_training(recipe, folder, _again("train", recipe_path, output, overrides))


def sft(recipe_path: Path, output: Path, overrides: list[str], resume: bool) -> None:
    """Supervised training with the learning curve of the recipe's suite."""
    recipe = load_recipe(recipe_path, overrides)
    folder = RunFolder(output, resume=resume)
    refuse_changes(folder, recipe)
    from motet.cli.runs import run_supervised

    run_supervised(recipe, folder, _again("sft", recipe_path, output, overrides))


def _again(command: str, recipe: Path, output: Path, overrides: list[str]) -> str:
    """The command that resumes the run, as one types it into a shell."""
    return shlex.join(["motet", command, str(recipe), *overrides, "--output", str(output), "--resume"])
