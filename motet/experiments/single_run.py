"""A complete run: build, evaluate, train, evaluate again, and write a run folder that other commands can use."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from motet.config import Recipe
from motet.core.printable import plural
from motet.core.protocols import TrainablePolicy
from motet.core.registry import is_object_path
from motet.distributed.parallel import Parallel
from motet.distributed.processes import Processes
from motet.experiments.monitoring import make_probes, raise_if_stopped
from motet.experiments.preflighting import check_before_first_step
from motet.experiments.run_context import RunContext, run_context
from motet.experiments.run_evaluation import (
    check_images,
    eval_metrics,
    evaluate_before,
    evaluate_suite,
    make_summary,
    print_table,
)
from motet.policies.loading import LoadSpec
from motet.report.progress import LOADING, waiting
from motet.report.resume_check import keep_resolved_dtypes
from motet.report.run_dir import RunFolder
from motet.report.trackers.tracking import resolve_trackers
from motet.training.checkpoint import Progress
from motet.training.engines import LOCAL, Engines
from motet.training.fixed_prompts import FixedPrompts
from motet.training.rollout_pipeline import check_engines
from motet.training.run_loop import Run
from motet.training.setup import TrainingSetup, setup_eval, setup_rl, setup_sft
from motet.training.sft import train_sft
from motet.training.signals import Stopped
from motet.training.suites import SuiteSettings, evaluate
from motet.training.threads import same_threads
from motet.training.time_budget import Pace
from motet.training.trainer import train
from motet.weights.locate import latest_checkpoint, resolve_checkpoint


@dataclass(frozen=True, eq=False)
class RunResult:
    """The results of a run: its folder, last checkpoint, evaluations (None if not made), policy and metrics."""

    folder: Path
    checkpoint: Path | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    policy: TrainablePolicy
    metrics: list[dict[str, Any]]
    """The lines of `metrics.jsonl`: one per step."""


def run_training(
    recipe: Recipe,
    folder: RunFolder,
    resume_command: str,
    before: dict[str, Any] | None = None,
    make_engines: Callable[[Recipe], Engines] | None = None,
    parallel: Parallel | None = None,
    *,
    preflight: bool = True,
) -> RunResult:
    """Evaluate, train with RL, evaluate again. `before`: the first evaluation, if known.

    `make_engines`: what computes rollouts and rewards of the recipe, whose dtypes are then resolved. `parallel`: how
    this process shares the run with others; all of them call this function alike. `preflight`: whether to check a tiny
    step before the first one.
    """
    with folder.held(), same_threads():
        recipe, dtype_reason = _with_resolved_dtypes(recipe, folder)
        engines = LOCAL if make_engines is None else make_engines(recipe)
        session = _setup(partial(setup_rl, place_rewards=engines.place_rewards), recipe, parallel)
        check_engines(engines, session)
        with run_context(recipe, folder, resume_command, session.processes) as context:
            context.say(_describe_processes(session.parallel))
            context.say(dtype_reason)
            check_before_first_step(context, session, preflight, engines)
            check_images(context, session)
            before = evaluate_before(context, session, before)
            fixed_prompts = FixedPrompts(session, folder, context.callbacks)
            run = _run(context, session, fixed_prompts)
            progress = _progress_if_finished(context, run, train(session, run, engines))
            fixed_prompts.record_last(progress.step)
            after = evaluate_suite(context, session, "after", like=before) if before is not None else None
            print_table(context, {"before": before, "after": after})
            folder.write_json(
                "summary.json", make_summary(recipe, folder, progress, {"before": before, "after": after})
            )
        _print_next_steps(context, session, progress)
    return _result(session, folder, before, after)


def run_sft(
    recipe: Recipe,
    folder: RunFolder,
    resume_command: str,
    before: dict[str, Any] | None = None,
    parallel: Parallel | None = None,
    *,
    preflight: bool = True,
) -> RunResult:
    """Supervised fine-tuning, evaluated at the end, and also before it if the suite asks for it.

    `before`: the first evaluation, if known; `parallel` and `preflight` as for `run_training`.
    """
    with folder.held(), same_threads():
        recipe, dtype_reason = _with_resolved_dtypes(recipe, folder)
        session = _setup(setup_sft, recipe, parallel)
        with run_context(recipe, folder, resume_command, session.processes) as context:
            context.say(_describe_processes(session.parallel))
            context.say(dtype_reason)
            check_before_first_step(context, session, preflight)
            check_images(context, session)
            before = evaluate_before(context, session, before) if context.suite and context.suite.before_sft else None
            fixed_prompts = FixedPrompts(session, folder, context.callbacks)
            run = _run(context, session, fixed_prompts)
            progress = _progress_if_finished(context, run, train_sft(session, run))
            fixed_prompts.record_last(progress.step)
            after = evaluate_suite(context, session, "after", like=before)
            results = {name: table for name, table in (("before", before), ("after", after)) if table is not None}
            print_table(context, results)
            folder.write_json("summary.json", make_summary(recipe, folder, progress, {"after": after, **results}))
        _print_next_steps(context, session, progress)
    return _result(session, folder, before, after)


def _setup(
    setup: Callable[[Recipe, Parallel], TrainingSetup], recipe: Recipe, parallel: Parallel | None
) -> TrainingSetup:
    """The run, set up in every process; an error in one of them is one in all."""
    parallel = parallel or Parallel()
    with parallel.processes.phase("setup"):
        resolve_trackers(recipe.run.report_to)  # before the model is loaded: a library may be missing
        with waiting(LOADING, quiet=not parallel.processes.is_main):
            return setup(recipe, parallel)


def _result(
    session: TrainingSetup, folder: RunFolder, before: dict[str, Any] | None, after: dict[str, Any] | None
) -> RunResult:
    with session.processes.phase("end"):
        newest = latest_checkpoint(folder.checkpoints)
    return RunResult(folder.path, newest, before, after, session.policy, folder.read_metrics())


def run_evaluation(recipe: Recipe, folder: RunFolder, resume_command: str) -> None:
    """Evaluate the recipe's checkpoint without training, as after a merge."""
    with folder.held(), run_context(recipe, folder, resume_command, Processes()) as context:
        after = None if context.suite is None else evaluate_suite(context, setup_eval(recipe), "after")
        folder.write_json("summary.json", make_summary(recipe, folder, Progress(0, 0.0, {}), {"after": after}))


def _describe_processes(parallel: Parallel) -> str:
    """Of a run that several processes share."""
    size = parallel.processes.size
    return f"{size} processes share each step: --parallel {parallel.name}." if size > 1 else ""


def _with_resolved_dtypes(recipe: Recipe, folder: RunFolder) -> tuple[Recipe, str]:
    """The recipe with `auto` dtypes resolved for this machine, or as when the run started; and the reason."""
    if is_object_path(recipe.policy.path):
        return recipe, ""
    spec = LoadSpec.at(resolve_checkpoint(recipe.policy.path), keep_resolved_dtypes(folder, recipe).policy)
    return recipe.model_copy(update={"policy": spec.settings}), spec.reason


def _progress_if_finished(context: RunContext, run: Run, progress: Progress) -> Progress:
    """The progress of a finished run. Raises Stopped, with the resume command, for an interrupted one."""
    raise_if_stopped(run, context.resume_command)
    if not run.finished:
        raise Stopped(f"Saved after step {progress.step}. Resume with: {context.resume_command}")
    return progress


def _run(context: RunContext, session: TrainingSetup, fixed_prompts: FixedPrompts) -> Run:
    """The run in its folder, with a quick evaluation every `eval.every` steps."""
    suite = context.suite
    settings = SuiteSettings(session, quick=True)
    quick_eval = None if suite is None else lambda: eval_metrics(evaluate(suite, session.policy, settings))
    callbacks = context.callbacks
    probes = [*fixed_prompts.probes, *make_probes(session, callbacks)]
    run = Run(session, context.folder, callbacks, context.interrupt, quick_eval, context.threads, probes=probes)
    context.bar.steps = lambda: run.pace.steps
    context.bar.explain_fewer = lambda steps: _explain_fewer(run.pace, steps)
    context.bar.seconds_left = lambda: run.pace.seconds_left
    context.callbacks.last = run.first, {}
    context.bar.phase("train")
    return run


def _explain_fewer(pace: Pace, steps: int) -> str:
    """What is said where `run.minutes` lowers the number of steps; empty where it does not."""
    settings = pace.settings
    if settings.minutes is None or steps >= settings.steps:
        return ""
    if steps == pace.done:
        return (
            f"run.minutes={settings.minutes:g} leaves no time for a step after step {steps} of run.steps="
            f"{settings.steps}: one takes about {pace.seconds_per_step or 0:.3g} s. For all of them: run.minutes=null."
        )
    return (
        f"run.minutes={settings.minutes:g} leaves time for about {steps} of run.steps={settings.steps}; the schedule "
        "follows. For all of them: run.minutes=null."
    )


def _print_next_steps(context: RunContext, session: TrainingSetup, progress: Progress) -> None:
    checkpoint, folder = latest_checkpoint(context.folder.checkpoints), context.folder.path
    settings, of_all = context.recipe.run, ""
    if progress.step < settings.steps and settings.minutes is not None:
        of_all = f" of {settings.steps} (run.minutes={settings.minutes:g})"
    lines = [f"Trained {plural(progress.step, 'step')}{of_all} in {progress.seconds:.0f} s: {checkpoint}"]
    if (folder / "before.png").is_file():
        lines.append(f"Images before and after: {folder / 'before.png'}, {folder / 'after.png'}")
    shapes = any(track.data.source == "shapes" for track in context.recipe.resolved_tracks().values())
    if any(track.scenario.acts_making("image") for track in session.tracks):
        prompt = "two red circles" if shapes else "YOUR PROMPT"
        lines.append(f'Try next: motet sample {shlex.quote(str(folder))} "{prompt}" --n 8 --out grid.png')
    else:
        question = "how many circles?" if shapes else "YOUR QUESTION"
        lines.append(f'Try next: motet ask {shlex.quote(str(folder))} image.png "{question}"')
    context.say(*lines)
