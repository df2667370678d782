"""`motet train`, `sft` and `pilot` up to the first heavy import: what is wrong with a recipe shows at once."""

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
    """Measure, train, measure again; leave the run folder and say what to try next. A plan: stage after stage.

    `only`: the stages of a plan that are wanted, with what they go on from; none: all.
    """
    chosen = [word for name in only for word in ("--only", name)]
    again = _again("train", recipe_path, output, [*overrides, *chosen])
    if is_plan(recipe_path):
        plan = load_plan(recipe_path, output, overrides)
        from motet.experiments.stages import run_plan

        run_plan(plan, output, again, resume=resume, only=only)
        return
    if only:
        fix = "leave it out, or give a plan."
        raise ConfigError(f"--only is {only[0]!r}, and {str(recipe_path)!r} is one run, not a plan of stages.", fix=fix)
    run_recipe(load_recipe(recipe_path, overrides), output, again, resume=resume)


@safe_output()
def sft(recipe_path: Path, output: Path, overrides: list[str], resume: bool) -> None:
    """Supervised training with the learning curve of the recipe's suite."""
    again = _again("sft", recipe_path, output, overrides)
    run_recipe(load_recipe(recipe_path, overrides), output, again, resume=resume, supervised=True)


@safe_output()
def pilot(study_path: Path, output: Path, overrides: list[str], resume: bool) -> None:
    """All strategies under all seeds, then the comparison; what is finished is skipped."""
    study = load_sweep(study_path, output, overrides)
    from motet.experiments.sweep import run_pilot

    run_pilot(study, output, _again("pilot", study_path, output, overrides), resume=resume)


def _again(command: str, recipe: Path, output: Path, overrides: list[str]) -> str:
    """The command that resumes the run, as one types it into a shell."""
    return shlex.join(["motet", command, str(recipe), *overrides, "--output", str(output), "--resume"])
