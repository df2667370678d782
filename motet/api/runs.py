"""`motet.train`, `motet.sft` and `motet.evaluate`: whole runs, with names, paths and objects everywhere.

The command line runs the same `run_recipe`. Imports no torch until a run begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motet.api.recipes import python_recipe
from motet.config import Recipe
from motet.distributed.environment import launched_by_torchrun
from motet.report.resume_mode import ResumeChoice, resumes_run

if TYPE_CHECKING:
    from motet.experiments.single_run import RunResult

PathOrRecipe = Recipe | str | PathLike[str]


def train(
    policy: Any = None,
    *,
    output: str | PathLike[str],
    scenario: Any = None,
    data: Any = None,
    rewards: Any = None,
    algorithm: Any = None,
    steps: int | None = None,
    callbacks: Sequence[Any] | None = None,
    recipe: PathOrRecipe | None = None,
    resume: ResumeChoice = False,
    preflight: bool = True,
    **sections: Any,
) -> RunResult:
    """Reinforcement learning, as `motet train` runs it: evaluate, train, evaluate again, leave a run folder.

    - `policy`: a checkpoint folder, a hub id, the path of a function, or a policy object, which is trained in place.
    - `scenario`: a name, a path, or what `@scenario` returns.
    - `data`: a file, a folder, a hub id, a list of rows (dicts), a `datasets.Dataset`, or a function of (config, seed).
    - `rewards`: one or several of: a name, a path, a function `f(prompts, completions, **columns) -> list[float]`, or
      a recipe's mapping, whose `name` may be such a function: {"name": f, "weight": 0.5, "acts": ["answer"]}.
    - `algorithm`: the section as a mapping, or a loss alone.
    - `callbacks`: objects with methods of `motet.Callback`, their classes, names or paths.
    - `recipe`: a recipe, or its YAML file, that the other arguments change.
    - `sections`: the other sections of a recipe as mappings, e.g. `optimizer={"learning_rate": 1e-5}`.

    `output` is the run folder; `resume=True` goes on with the run there, `"auto"` does if there is one. In a script
    that `torchrun` starts, its processes share the run as those of `motet train` do. `preflight=False` leaves out the
    checks before the first step (docs/how-to/preflight.md). Raises the errors of `motet.core.errors`, and Stopped when
    Ctrl-C has ended the run after a whole step, which is saved.
    """
    given = {"policy": policy, "scenario": scenario, "data": data, "rewards": rewards, "algorithm": algorithm}
    given |= {"steps": steps, "callbacks": callbacks, **sections}
    with python_recipe(recipe, given) as made:
        return run_recipe(made, Path(output), _resume_call("train", output), resume=resume, preflight=preflight)


def sft(
    policy: Any = None,
    *,
    output: str | PathLike[str],
    scenario: Any = None,
    data: Any = None,
    targets: Mapping[str, str] | None = None,
    steps: int | None = None,
    callbacks: Sequence[Any] | None = None,
    recipe: PathOrRecipe | None = None,
    resume: ResumeChoice = False,
    preflight: bool = True,
    **sections: Any,
) -> RunResult:
    """Supervised fine-tuning, as `motet sft` runs it; arguments as of `train`.

    `targets`: act -> column of its target, e.g. {"answer": "solution"} (`data.targets` of a recipe).
    """
    given = {"policy": policy, "scenario": scenario, "data": data, "targets": targets, "steps": steps}
    given |= {"callbacks": callbacks, **sections}
    with python_recipe(recipe, given) as made:
        return run_recipe(
            made, Path(output), _resume_call("sft", output), resume=resume, supervised=True, preflight=preflight
        )


def evaluate(
    policy: Any = None,
    *,
    suite: Any = None,
    scenario: Any = None,
    data: Any = None,
    rewards: Any = None,
    recipe: PathOrRecipe | None = None,
    **sections: Any,
) -> dict[str, Any]:
    """Evaluate a policy with a suite; returns the suite's table, as `before` and `after` of `train` hold it.

    `suite`: a name, a path, a function `f(policy, settings, **options)`, or a mapping {"name": ..., option: value}.
    None: the suite `rewards`, which rolls out `scenario` on `data` (of a dataset with splits: on `test`) and scores it
    with `rewards`. Everything else as for `train`; `eval={"size": 64}` limits the number of rows.
    """
    given = {"policy": policy, "scenario": scenario, "data": data, "rewards": rewards, "steps": 1, **sections}
    chosen = suite if suite is not None or recipe is not None else {"name": "rewards", "data": data}
    if chosen is not None:
        given["eval"] = {**(sections.get("eval") or {}), "suite": chosen}
    with python_recipe(recipe, given) as made:
        from motet.training.setup import setup_eval
        from motet.training.suites import SuiteSettings, resolve_suite

        setup, found = setup_eval(made), resolve_suite(made)
        return {} if found is None else found(setup.policy, SuiteSettings(setup)).table


def run_recipe(
    recipe: Recipe,
    output: Path,
    resume_command: str,
    *,
    resume: ResumeChoice = False,
    supervised: bool = False,
    make_engines: Any = None,
    parallel: str | None = None,
    timeout: float | None = None,
    preflight: bool = True,
) -> RunResult:
    """Run a recipe in the folder `output`: what `motet train` and `motet sft` do once they have read it.

    `resume_command`: what goes on with the run, for messages. `make_engines` and `preflight`: see `run_training`.
    `parallel` and `timeout` as of `motet.distributed.launch.open_parallel`: under `torchrun` every process calls this,
    and they share the run.
    """
    from motet.report.resume_check import check_resume_compatible
    from motet.report.run_dir import FollowerFolder, RunFolder

    resume = resumes_run(output, resume)
    if not launched_by_torchrun():  # before torch is imported
        check_resume_compatible(RunFolder(output, resume=resume), recipe)
    from motet.distributed.launch import open_parallel
    from motet.experiments.single_run import run_sft, run_training

    with open_parallel(parallel, recipe.policy.device, timeout) as shared:
        with shared.processes.phase("recipe"):
            folder = (RunFolder if shared.processes.is_main else FollowerFolder)(output, resume=resume)
            check_resume_compatible(folder, recipe)
        if supervised:
            return run_sft(recipe, folder, resume_command, parallel=shared, preflight=preflight)
        settings = {"make_engines": make_engines, "parallel": shared, "preflight": preflight}
        return run_training(recipe, folder, resume_command, **settings)


def _resume_call(function: str, output: str | PathLike[str]) -> str:
    return f"motet.{function}(..., output={fspath(output)!r}, resume=True)"
