"""A complete run: build, evaluate, train, evaluate again, and write a run folder that other commands can use."""

from __future__ import annotations

import shlex
import statistics
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from motet.config import Recipe, to_yaml
from motet.core.errors import MotetError, NumericsError
from motet.core.protocols import TrainablePolicy
from motet.core.registry import is_object_path
from motet.distributed.parallel import Parallel
from motet.distributed.processes import Processes
from motet.evaluation.reconstruction import reconstruct_sample, reconstruction_grid
from motet.experiments.monitoring import make_probes, raise_if_stopped
from motet.policies.loading import LoadSpec
from motet.report.callbacks import CallbackList, resolve_callbacks
from motet.report.image_grid import make_image_grid, save_image
from motet.report.progress import ProgressBar
from motet.report.resume_check import keep_resolved_dtypes, starting_weights
from motet.report.run_dir import RunFolder
from motet.report.terminal import Terminal
from motet.training.checkpoint import Progress
from motet.training.engines import LOCAL, Engines
from motet.training.rollout_pipeline import check_engines
from motet.training.run_loop import Run
from motet.training.setup import TrainingSetup, setup_eval, setup_rl, setup_sft
from motet.training.sft import train_sft
from motet.training.signals import Interrupt, Stopped
from motet.training.suites import Suite, SuiteResult, SuiteSettings, evaluate, resolve_suite
from motet.training.threads import ThreadTuner, same_threads
from motet.training.trainer import train
from motet.weights.locate import latest_checkpoint, resolve_checkpoint

RECONSTRUCTION = "reconstruction.png"


@dataclass(frozen=True)
class _RunContext:
    """The parts that all phases of a run use; `resume_command` is the shell command that resumes it."""

    recipe: Recipe
    folder: RunFolder
    resume_command: str
    console: Terminal
    bar: ProgressBar
    callbacks: CallbackList
    suite: Suite | None
    interrupt: Interrupt
    threads: ThreadTuner | None
    processes: Processes

    def say(self, line: str) -> None:
        """Print a line unless it is empty."""
        if line:
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)


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
) -> RunResult:
    """Evaluate, train with RL, evaluate again. `before`: the first evaluation, if known.

    `make_engines`: what computes rollouts and rewards of the recipe, whose dtypes are then resolved. `parallel`: how
    this process shares the run with others; all of them call this function alike.
    """
    with folder.held(), same_threads():
        recipe, dtype_reason = _with_resolved_dtypes(recipe, folder)
        engines = LOCAL if make_engines is None else make_engines(recipe)
        session = _setup(partial(setup_rl, place_rewards=engines.place_rewards), recipe, parallel)
        check_engines(engines, session)
        with _run_context(recipe, folder, resume_command, session.processes) as context:
            context.say(_describe_processes(session.parallel))
            context.say(dtype_reason)
            _check_images(context, session)
            before = _evaluate_before(context, session, before)
            run = _run(context, session)
            progress = _progress_if_finished(context, run, train(session, run, engines))
            after = _evaluate(context, session, "after", like=before) if before is not None else None
            _print_table(context, {"before": before, "after": after})
            folder.write_json("summary.json", _summary(recipe, folder, progress, {"before": before, "after": after}))
        _print_next_steps(context, session, progress)
    return _result(session, folder, before, after)


def run_sft(
    recipe: Recipe,
    folder: RunFolder,
    resume_command: str,
    before: dict[str, Any] | None = None,
    parallel: Parallel | None = None,
) -> RunResult:
    """Supervised fine-tuning, evaluated at the end, and also before it if the suite asks for it.

    `before`: the first evaluation, if known; `parallel` as for `run_training`.
    """
    with folder.held(), same_threads():
        recipe, dtype_reason = _with_resolved_dtypes(recipe, folder)
        session = _setup(setup_sft, recipe, parallel)
        with _run_context(recipe, folder, resume_command, session.processes) as context:
            context.say(_describe_processes(session.parallel))
            context.say(dtype_reason)
            _check_images(context, session)
            before = _evaluate_before(context, session, before) if context.suite and context.suite.before_sft else None
            run = _run(context, session)
            progress = _progress_if_finished(context, run, train_sft(session, run))
            after = _evaluate(context, session, "after", like=before)
            results = {name: table for name, table in (("before", before), ("after", after)) if table is not None}
            _print_table(context, results)
            folder.write_json("summary.json", _summary(recipe, folder, progress, {"after": after, **results}))
        _print_next_steps(context, session, progress)
    return _result(session, folder, before, after)


def _setup(
    setup: Callable[[Recipe, Parallel], TrainingSetup], recipe: Recipe, parallel: Parallel | None
) -> TrainingSetup:
    """The run, set up in every process; an error in one of them is one in all."""
    parallel = parallel or Parallel()
    with parallel.processes.phase("setup"):
        return setup(recipe, parallel)


def _result(
    session: TrainingSetup, folder: RunFolder, before: dict[str, Any] | None, after: dict[str, Any] | None
) -> RunResult:
    with session.processes.phase("end"):
        newest = latest_checkpoint(folder.checkpoints)
    return RunResult(folder.path, newest, before, after, session.policy, folder.read_metrics())


def run_evaluation(recipe: Recipe, folder: RunFolder, resume_command: str) -> None:
    """Evaluate the recipe's checkpoint without training, as after a merge."""
    with folder.held(), _run_context(recipe, folder, resume_command, Processes()) as context:
        after = None if context.suite is None else _evaluate(context, setup_eval(recipe), "after")
        folder.write_json("summary.json", _summary(recipe, folder, Progress(0, 0.0, {}), {"after": after}))


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


@contextmanager
def _run_context(recipe: Recipe, folder: RunFolder, resume_command: str, processes: Processes) -> Iterator[_RunContext]:
    """Create the folder, show the progress bar and catch Ctrl-C; of several processes the main one does.

    An error before the first step is finished removes the folder; later errors name the newest checkpoint.
    """
    console, suite = Terminal(quiet=not processes.is_main), resolve_suite(recipe)
    registered = resolve_callbacks(recipe.run.callbacks) if processes.is_main else []
    threads = ThreadTuner() if recipe.run.threads is None else None
    with processes.phase("folder"):
        folder.create(to_yaml(recipe), starting_weights(recipe))
        if processes.is_main:
            (folder.path / "summary.json").unlink(missing_ok=True)  # left by a shorter run
    try:
        with ProgressBar(console) as bar, Interrupt() as interrupt:
            callbacks = CallbackList([bar, *registered] if processes.is_main else [])
            with processes.phase("callbacks"):
                callbacks.on_run_start(recipe, folder.path)
            try:
                yield _RunContext(
                    recipe, folder, resume_command, console, bar, callbacks, suite, interrupt, threads, processes
                )
            finally:
                callbacks.on_run_end(*callbacks.last)
    except Stopped:
        raise
    except KeyboardInterrupt:
        raise Stopped(f"Stopped. Resume with: {resume_command}") from None
    except Exception as error:
        if not folder.has_started:
            with suppress(OSError):
                folder.remove_if_new()
        elif isinstance(error, NumericsError):  # its fixes change settings that a resumed run cannot change
            resume_command = f"start a new run, from these weights with policy.path={folder.path}."
            raise NumericsError(
                f"{error.problem} {_saved_so_far(folder)}", fix=f"{error.fix} Then {resume_command}"
            ) from error
        elif isinstance(error, MotetError):
            raise type(error)(
                f"{error.problem} {_saved_so_far(folder)}", fix=f"{error.fix} Then: {resume_command}"
            ) from error
        else:
            error.add_note(f"{_saved_so_far(folder)} Resume with: {resume_command}")
        raise


def _saved_so_far(folder: RunFolder) -> str:
    newest = latest_checkpoint(folder.checkpoints)
    done = len(folder.read_metrics())
    saved = "no checkpoint is saved yet" if newest is None else f"the newest checkpoint is {str(newest)!r}"
    return f"(After {done} steps; {saved}.)"


def _progress_if_finished(context: _RunContext, run: Run, progress: Progress) -> Progress:
    """The progress of a finished run. Raises Stopped, with the resume command, for an interrupted one."""
    raise_if_stopped(run, context.resume_command)
    if not run.finished:
        raise Stopped(f"Saved after step {progress.step}. Resume with: {context.resume_command}")
    return progress


def _run(context: _RunContext, session: TrainingSetup) -> Run:
    """The run in its folder, with a quick evaluation every `eval.every` steps."""
    suite = context.suite
    settings = SuiteSettings(session, quick=True)
    quick_eval = None if suite is None else lambda: _eval_metrics(evaluate(suite, session.policy, settings))
    callbacks, probes = context.callbacks, make_probes(session, context.callbacks)
    run = Run(session, context.folder, callbacks, context.interrupt, quick_eval, context.threads, probes=probes)
    context.bar.steps = lambda: run.pace.steps
    context.callbacks.last = run.first, {}
    return run


def _check_images(context: _RunContext, session: TrainingSetup) -> None:
    """Write `reconstruction.png` for data with target images, and warn if the image tokenizer loses too much."""
    path, reconstruction = context.folder.path / RECONSTRUCTION, None
    with session.parallel.full_weights(session.policy), context.processes.phase("reconstruction"):
        if context.processes.is_main and not path.is_file():
            reconstruction = reconstruct_sample(session)
    if reconstruction is not None:
        try:
            save_image(reconstruction_grid(reconstruction), path)
        except OSError as error:
            warnings.warn(f"{str(path)!r} is not saved: {error.strerror or error}.", stacklevel=2)
        if reconstruction.is_poor:
            context.say(f"{reconstruction.warning} See {path}.")


def _evaluate_before(
    context: _RunContext, session: TrainingSetup, known: dict[str, Any] | None
) -> dict[str, Any] | None:
    """The evaluation before the first step: read from the run folder, given as `known`, or made now.

    None without a suite, or if a run without it is resumed.
    """
    processes, checkpoints = context.processes, context.folder.checkpoints
    before = processes.broadcast(context.folder.read_json("before.json") or known)
    if before is None and processes.broadcast(latest_checkpoint(checkpoints)) is None:
        before = _evaluate(context, session, "before")
    if before is not None:
        context.folder.write_json("before.json", before)
    return before


def _evaluate(
    context: _RunContext, session: TrainingSetup, name: str, like: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Run the suite, if there is one, and write `<name>.png`. An interruption stops it at once.

    It uses as many items as the evaluation `like`, if given, and as `eval` says otherwise.
    """
    suite = context.suite
    if suite is None:
        return None

    def on_progress(done: int, total: int) -> None:
        if context.processes.any(context.interrupt.asked):
            raise KeyboardInterrupt
        if context.threads is not None:
            context.threads.adapt()
        context.bar.items(f"evaluate {name}", done, total)

    result = evaluate(suite, session.policy, SuiteSettings(session, same_items_as=like, progress=on_progress))
    context.callbacks.on_eval(context.callbacks.last[0], _eval_metrics(result))
    if result.samples and context.processes.is_main:
        images, prompts, correct = zip(*result.samples, strict=True)
        grid = make_image_grid(images, prompts, correct, title=f"{name}: {suite.samples_title}")
        path = context.folder.path / f"{name}.png"
        try:
            save_image(grid, path)
        except OSError as error:  # the results are still returned
            warnings.warn(f"{str(path)!r} is not saved: {error.strerror or error}.", stacklevel=2)
    return result.table


def _print_table(context: _RunContext, tables: Mapping[str, dict[str, Any] | None]) -> None:
    evaluated = {heading: table for heading, table in tables.items() if table is not None}
    if context.suite is not None and evaluated:
        context.console.print(context.suite.show(evaluated))


def _eval_metrics(result: SuiteResult) -> dict[str, float]:
    return {f"eval/{name}": value for name, value in result.metrics.items()}


def _summary(
    recipe: Recipe, folder: RunFolder, progress: Progress, results: dict[str, dict[str, Any] | None]
) -> dict[str, Any]:
    speeds = [line["images_per_second"] for line in folder.read_metrics() if line.get("images_per_second")]
    return {
        **results,
        "seconds": round(progress.seconds, 1),
        "steps": progress.step,
        "images_per_second": round(statistics.fmean(speeds), 1) if speeds else None,
        "seed": recipe.run.seed,
    }


def _print_next_steps(context: _RunContext, session: TrainingSetup, progress: Progress) -> None:
    checkpoint, folder = latest_checkpoint(context.folder.checkpoints), context.folder.path
    lines = [f"Trained {progress.step} steps in {progress.seconds:.0f} s: {checkpoint}"]
    if (folder / "before.png").is_file():
        lines.append(f"Images before and after: {folder / 'before.png'}, {folder / 'after.png'}")
    shapes = any(track.data.source == "shapes" for track in context.recipe.resolved_tracks().values())
    if any(track.scenario.acts_making("image") for track in session.tracks):
        prompt = "two red circles" if shapes else "YOUR PROMPT"
        lines.append(f'Try next: motet sample {shlex.quote(str(folder))} "{prompt}" --n 8 --out grid.png')
    else:
        question = "how many circles?" if shapes else "YOUR QUESTION"
        lines.append(f'Try next: motet ask {shlex.quote(str(folder))} image.png "{question}"')
    context.say("\n".join(lines))
