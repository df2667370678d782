"""`motet train`, `sft` and `sweep`: recipes are checked before anything heavy is imported."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from motet.api.runs import run_recipe
from motet.config import Recipe, load_recipe
from motet.config.stages import is_plan, load_plan
from motet.config.sweep import load_sweep
from motet.core.errors import ConfigError
from motet.core.printable import plural
from motet.distributed.environment import global_rank, launched_by_torchrun
from motet.distributed.ray_options import RayOptions
from motet.report.resume_check import check_resume_compatible
from motet.report.resume_mode import ResumeChoice, finished_summary, resumes_run
from motet.report.run_dir import RunFolder
from motet.report.safe_streams import safe_output
from motet.report.terminal import say

if TYPE_CHECKING:
    from motet.training.engines import Engines


class Launch(NamedTuple):
    """How the processes that torchrun starts share the run, how many seconds they wait for each other, and whether
    there are checks before the first step."""

    parallel: str | None = None
    timeout: float | None = None
    preflight: bool = True


ALONE = Launch()


@safe_output()
def train(
    recipe_path: Path,
    output: Path,
    overrides: list[str],
    resume: ResumeChoice,
    only: Sequence[str] = (),
    *,
    ray: RayOptions | None = None,
    launch: Launch = ALONE,
    max_staleness: int = 0,
) -> None:
    """Evaluate, train, evaluate again, and print what to try next; with several stages, run them in order.

    `only`: the stages to run, with their dependencies; none: all. `ray`: where to run on Ray. `max_staleness`: how many
    steps rollouts and rewards start ahead of the update.
    """
    selection = [text for name in only for text in ("--only", name)]
    if ray is None and max_staleness:
        selection += ["--max-staleness", str(max_staleness)]
    if ray is not None:
        selection += [*ray.arguments, *(("--parallel", launch.parallel) if launch.parallel else ())]
    resume_command = _resume_command("train", recipe_path, output, [*overrides, *selection])
    if is_plan(recipe_path):
        if ray is None and max_staleness:
            fix = "run each stage with a recipe of its own, or leave out --max-staleness."
            raise ConfigError(f"--max-staleness does not support {str(recipe_path)!r}, which has stages.", fix=fix)
        if ray is not None:
            fix = "run each stage with a recipe of its own, or leave out --ray."
            raise ConfigError(f"--ray does not support {str(recipe_path)!r}, which has stages.", fix=fix)
        if launched_by_torchrun():
            fix = "start it without torchrun, or give torchrun one stage at a time as a recipe of its own."
            raise ConfigError(f"torchrun does not support {str(recipe_path)!r}, which has stages.", fix=fix)
        plan = load_plan(recipe_path, output, overrides)
        from motet.experiments.stages import run_plan

        run_plan(plan, output, resume_command, resume=resume, only=only, preflight=launch.preflight)
        return
    if only:
        fix = "leave out --only, or give a recipe with stages."
        raise ConfigError(f"--only is {only[0]!r}, but {str(recipe_path)!r} has no stages.", fix=fix)
    recipe = load_recipe(recipe_path, overrides)
    if resume == "auto" and _is_finished(recipe, output):
        return
    if ray is None:
        engines = partial(_local_engines, max_staleness) if max_staleness else None
        run_recipe(recipe, output, resume_command, resume=resume, make_engines=engines, **launch._asdict())
        return
    resume = resumes_run(output, resume)
    check_resume_compatible(RunFolder(output, resume=resume), recipe)
    from motet.api.ray_run import run_on_ray

    settings = {"parallel": launch.parallel, "preflight": launch.preflight}
    run_on_ray(recipe, output, resume_command, ray, resume=resume, **settings)


def _local_engines(max_staleness: int, _: Recipe) -> Engines:
    from motet.training.engines import Engines  # imports torch

    return Engines(max_staleness=max_staleness)


@safe_output()
def sft(recipe_path: Path, output: Path, overrides: list[str], resume: ResumeChoice, launch: Launch = ALONE) -> None:
    """Supervised fine-tuning, evaluated with the recipe's suite."""
    resume_command = _resume_command("sft", recipe_path, output, overrides)
    recipe = load_recipe(recipe_path, overrides)
    if resume == "auto" and _is_finished(recipe, output):
        return
    run_recipe(recipe, output, resume_command, resume=resume, supervised=True, **launch._asdict())


@safe_output()
def sweep(
    path: Path,
    output: Path,
    overrides: list[str],
    resume: ResumeChoice,
    only: Collection[str] = (),
    seeds: Collection[int] = (),
) -> None:
    """Run all strategies with all seeds, skipping finished ones, then compare them; or run a part alone."""
    config = load_sweep(path, output, overrides)
    from motet.experiments.sweep import run_part, run_sweep

    compare_command = _resume_command("sweep", path, output, overrides)
    if not only and not seeds:
        run_sweep(config, output, compare_command, resume=resume)
        return
    options = [("--only", name) for name in only] + [("--seed", str(seed)) for seed in seeds]
    selection = [text for option in options for text in option]
    resume_command = _resume_command("sweep", path, output, [*overrides, *selection])
    run_part(config.part(only, seeds), output, resume_command, resume=resume)
    say(f"When all parts are done, compare them with: {compare_command}")


def _is_finished(recipe: Recipe, output: Path) -> bool:
    """Say so if the folder holds a run that is finished: of several processes all return then, before they meet."""
    if not resumes_run(output, "auto"):
        return False
    folder = RunFolder(output, resume=True)
    check_resume_compatible(folder, recipe)
    summary = finished_summary(folder, recipe)
    if summary is not None and global_rank() == 0:
        say(f"The run in {str(output)!r} is already finished: {plural(summary['steps'], 'step')}.")
    return summary is not None


def _resume_command(command: str, recipe: Path, output: Path, overrides: list[str]) -> str:
    """The shell command that resumes the run."""
    return shlex.join(["motet", command, str(recipe), *overrides, "--output", str(output), "--resume"])
