"""`motet train`, `sft` and `sweep`: recipes are checked before anything heavy is imported."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from motet.api.runs import run_recipe
from motet.config import load_recipe
from motet.config.stages import is_plan, load_plan
from motet.config.sweep import load_sweep
from motet.core.errors import ConfigError
from motet.report.safe_streams import safe_output


@safe_output()
def train(recipe_path: Path, output: Path, overrides: list[str], resume: bool, only: Sequence[str] = ()) -> None:
    """Evaluate, train, evaluate again, and print what to try next; with several stages, run them in order.

    `only`: the stages to run, with their dependencies; none: all.
    """
    selection = [text for name in only for text in ("--only", name)]
    resume_command = _resume_command("train", recipe_path, output, [*overrides, *selection])
    if is_plan(recipe_path):
        plan = load_plan(recipe_path, output, overrides)
        from motet.experiments.stages import run_plan

        run_plan(plan, output, resume_command, resume=resume, only=only)
        return
    if only:
        fix = "leave out --only, or give a recipe with stages."
        raise ConfigError(f"--only is {only[0]!r}, but {str(recipe_path)!r} has no stages.", fix=fix)
    run_recipe(load_recipe(recipe_path, overrides), output, resume_command, resume=resume)


@safe_output()
def sft(recipe_path: Path, output: Path, overrides: list[str], resume: bool) -> None:
    """Supervised fine-tuning, evaluated with the recipe's suite."""
    resume_command = _resume_command("sft", recipe_path, output, overrides)
    run_recipe(load_recipe(recipe_path, overrides), output, resume_command, resume=resume, supervised=True)


@safe_output()
def sweep(path: Path, output: Path, overrides: list[str], resume: bool) -> None:
    """Run all strategies with all seeds, skipping finished ones, then compare them."""
    config = load_sweep(path, output, overrides)
    from motet.experiments.sweep import run_sweep

    run_sweep(config, output, _resume_command("sweep", path, output, overrides), resume=resume)


def _resume_command(command: str, recipe: Path, output: Path, overrides: list[str]) -> str:
    """The shell command that resumes the run."""
    return shlex.join(["motet", command, str(recipe), *overrides, "--output", str(output), "--resume"])
