"""Runs from beginning to end: build, measure, train, measure again, and leave a folder that other commands can use."""

from __future__ import annotations

import shlex
import statistics
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from motet.config import EvalConfig, Recipe, to_yaml
from motet.core.errors import MotetError, NumericsError
from motet.core.protocols import TrainablePolicy
from motet.core.registry import is_object_path
from motet.evaluation.reconstruction import reconstruct_sample, reconstruction_grid
from motet.evaluation.rewards_suite import evaluate_tracks
from motet.evaluation.shapes_suite import evaluate_shapes
from motet.policies.loading import LoadSpec
from motet.report.callbacks import CallbackList, resolve_callbacks
from motet.report.image_grid import make_image_grid, save_image
from motet.report.progress import ProgressBar
from motet.report.resume_check import keep_resolved_dtypes, starting_weights
from motet.report.run_dir import RunFolder
from motet.report.tables import rewards_table, suite_table
from motet.report.terminal import Terminal
from motet.training.checkpoint import Progress
from motet.training.run_loop import Run
from motet.training.setup import TrainingSetup, sampling_params, setup_eval, setup_rl, setup_sft
from motet.training.sft import train_sft
from motet.training.signals import Interrupt, Stopped
from motet.training.threads import ThreadTuner, same_threads
from motet.training.trainer import train
from motet.weights.locate import latest_checkpoint, resolve_checkpoint

RECONSTRUCTION = "reconstruction.png"


@dataclass(frozen=True)
class _RunContext:
    """Where a run is shown, kept and interrupted; `again` is the command that resumes it."""

    recipe: Recipe
    folder: RunFolder
    again: str
    console: Terminal
    bar: ProgressBar
    callbacks: CallbackList
    interrupt: Interrupt
    threads: ThreadTuner | None

    def say(self, line: str) -> None:
        """A line for people; an empty one is not worth a line."""
        if line:
            self.console.print(line, soft_wrap=True, highlight=False, markup=False)


@dataclass(frozen=True, eq=False)
class RunResult:
    """What a run came to: its folder, the checkpoint it ends with, the evaluations (None: not made), the policy."""

    folder: Path
    checkpoint: Path | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    policy: TrainablePolicy
    metrics: list[dict[str, Any]]
    """The lines of `metrics.jsonl`: one per step."""


def run_training(recipe: Recipe, folder: RunFolder, again: str, before: dict[str, Any] | None = None) -> RunResult:
    """Evaluate, train by reinforcement learning, evaluate again. `before`: the first evaluation, if it is known."""
    with folder.held(), same_threads():
        recipe, types = _with_compute_types(recipe, folder)
        session = setup_rl(recipe)
        with _run_context(recipe, folder, again) as desk:
            desk.say(types)
            _check_images(desk, session)
            before = _measure_before(desk, session, before)
            run = _run(desk, session)
            progress = _finished(desk, run, train(session, run))
            after = _measure(desk, session, "after", like=before) if before is not None else None
            if before is not None and after is not None:
                desk.console.print(_table(recipe, {"before": before, "after": after}))
            folder.write_json("summary.json", _summary(recipe, folder, progress, {"before": before, "after": after}))
        _print_next_steps(desk, session, progress)
    return _result(session, folder, before, after)


def run_supervised(recipe: Recipe, folder: RunFolder, again: str, before: dict[str, Any] | None = None) -> RunResult:
    """Supervised training with its learning curve, measured at the end; by the suite `rewards` before it as well.

    `before`: the first measurement, if it is known.
    """
    with folder.held(), same_threads():
        recipe, types = _with_compute_types(recipe, folder)
        session = setup_sft(recipe)
        with _run_context(recipe, folder, again) as desk:
            desk.say(types)
            _check_images(desk, session)
            before = _measure_before(desk, session, before) if recipe.eval.suite.name == "rewards" else None
            run = _run(desk, session)
            progress = _finished(desk, run, train_sft(session, run))
            after = _measure(desk, session, "after", like=before) if recipe.eval.suite.name != "none" else None
            measured = {name: table for name, table in (("before", before), ("after", after)) if table is not None}
            if measured:
                desk.console.print(_table(recipe, measured))
            folder.write_json("summary.json", _summary(recipe, folder, progress, {"after": after, **measured}))
        _print_next_steps(desk, session, progress)
    return _result(session, folder, before, after)


def _result(
    session: TrainingSetup, folder: RunFolder, before: dict[str, Any] | None, after: dict[str, Any] | None
) -> RunResult:
    newest = latest_checkpoint(folder.checkpoints)
    return RunResult(folder.path, newest, before, after, session.policy, folder.read_metrics())


def run_measurement(recipe: Recipe, folder: RunFolder, again: str) -> None:
    """Measure the recipe's checkpoint as it is: what a merge, which trains nothing, is judged by."""
    with folder.held(), _run_context(recipe, folder, again) as desk:
        after = _measure(desk, setup_eval(recipe), "after") if recipe.eval.suite.name != "none" else None
        folder.write_json("summary.json", _summary(recipe, folder, Progress(0, 0.0, {}), {"after": after}))


def _with_compute_types(recipe: Recipe, folder: RunFolder) -> tuple[Recipe, str]:
    """The recipe with the compute types that `auto` means here, or meant when the run began; and why these."""
    if is_object_path(recipe.policy.path):
        return recipe, ""
    opened = LoadSpec.at(resolve_checkpoint(recipe.policy.path), keep_resolved_dtypes(folder, recipe).policy)
    return recipe.model_copy(update={"policy": opened.settings}), opened.reason


@contextmanager
def _run_context(recipe: Recipe, folder: RunFolder, again: str) -> Iterator[_RunContext]:
    """The folder made, the bar shown, Ctrl-C caught.

    An error before the first step is done leaves no folder behind; a later one tells the newest checkpoint.
    """
    console, own = Terminal(), resolve_callbacks(recipe.run.callbacks)
    threads = ThreadTuner() if recipe.run.threads is None else None
    folder.create(to_yaml(recipe), starting_weights(recipe))
    (folder.path / "summary.json").unlink(missing_ok=True)  # of a shorter run: this one is not at its end
    try:
        with ProgressBar(console) as bar, Interrupt() as interrupt:
            callbacks = CallbackList([bar, *own])
            callbacks.on_run_start(recipe, folder.path)
            try:
                yield _RunContext(recipe, folder, again, console, bar, callbacks, interrupt, threads)
            finally:
                callbacks.on_run_end(*callbacks.last)
    except Stopped:
        raise
    except KeyboardInterrupt:
        raise Stopped(f"Stopped. Resume with: {again}") from None
    except Exception as error:
        if not folder.has_started:
            with suppress(OSError):
                folder.remove_if_new()
        elif isinstance(error, NumericsError):  # its fixes change settings that a resume may not
            again = f"start a new run, from these weights with policy.path={folder.path}."
            raise NumericsError(f"{error.problem} {_what_is_saved(folder)}", fix=f"{error.fix} Then {again}") from error
        elif isinstance(error, MotetError):
            raise type(error)(f"{error.problem} {_what_is_saved(folder)}", fix=f"{error.fix} Then: {again}") from error
        else:
            error.add_note(f"{_what_is_saved(folder)} Resume with: {again}")
        raise


def _what_is_saved(folder: RunFolder) -> str:
    newest = latest_checkpoint(folder.checkpoints)
    done = len(folder.read_metrics())
    saved = "no checkpoint is saved yet" if newest is None else f"the newest checkpoint is {str(newest)!r}"
    return f"(After {done} steps; {saved}.)"


def _finished(desk: _RunContext, run: Run, progress: Progress) -> Progress:
    """The progress of a run that is at its end; an interrupted one says how to resume it and exits."""
    if not run.finished:
        raise Stopped(f"Saved after step {progress.step}. Resume with: {desk.again}")
    return progress


def _run(desk: _RunContext, session: TrainingSetup) -> Run:
    """The keeping of the run, with a quick look at held-back items every `eval.every` steps."""
    looks = {"shapes": _glimpse_of_shapes, "rewards": _glimpse_of_rewards}
    look = looks.get(desk.recipe.eval.suite.name)
    measure = None if look is None else lambda: look(session)
    run = Run(session, desk.folder, desk.callbacks, desk.interrupt, measure, desk.threads)
    desk.bar.steps = lambda: run.pace.steps
    desk.callbacks.last = run.first, {}
    return run


def _check_images(desk: _RunContext, session: TrainingSetup) -> None:
    """Of data that shows what is to be drawn, leave `reconstruction.png`; warn where the image tokenizer loses it."""
    path = desk.folder.path / RECONSTRUCTION
    found = None if path.is_file() else reconstruct_sample(session)
    if found is not None:
        try:
            save_image(reconstruction_grid(found), path)
        except OSError as error:
            warnings.warn(f"{str(path)!r} is not saved: {error.strerror or error}.", stacklevel=2)
        if found.is_poor:
            desk.say(f"{found.warning} See {path}.")


def _measure_before(desk: _RunContext, session: TrainingSetup, known: dict[str, Any] | None) -> dict[str, Any] | None:
    """The measurement before the first step: as this run has made it before, as it is known, or made now.

    None without a suite, and where a run goes on that has none.
    """
    before = desk.folder.read_json("before.json") or known
    if before is None and desk.recipe.eval.suite.name != "none" and latest_checkpoint(desk.folder.checkpoints) is None:
        before = _measure(desk, session, "before")
    if before is not None:
        desk.folder.write_json("before.json", before)
    return before


def _measure(
    desk: _RunContext, session: TrainingSetup, name: str, like: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Run the suite and leave `<name>.png`. An interruption stops it at once: nothing is lost.

    On as many items as the measurement `like` that it is compared with, or as `eval` says.
    """
    recipe = desk.recipe

    def tell(done: int, total: int) -> None:
        if desk.interrupt.asked:
            raise KeyboardInterrupt
        if desk.threads is not None:
            desk.threads.adapt()
        desk.bar.items(f"measure {name}", done, total)

    if recipe.eval.suite.name == "rewards":
        outcome = evaluate_tracks(session, tell, like)
    else:
        settings = recipe.eval if like is None else _like(recipe.eval, like["items"])
        outcome = evaluate_shapes(session.policy, settings, world_of(recipe), sampling_params(recipe), tell)
    shown = outcome.samples
    if shown:
        grid = make_image_grid(
            [s.image for s in shown],
            [s.prompt for s in shown],
            [s.correct for s in shown],
            title=f"{name}: first samples" + (", hard prompts first" if recipe.eval.suite.name == "shapes" else ""),
        )
        path = desk.folder.path / f"{name}.png"
        try:
            save_image(grid, path)
        except OSError as error:  # the numbers are what counts
            warnings.warn(f"{str(path)!r} is not saved: {error.strerror or error}.", stacklevel=2)
    return outcome.table


def _like(settings: EvalConfig, items: Mapping[str, int]) -> EvalConfig:
    """The settings that measure the items of a measurement again, however long that takes."""
    suite = settings.suite.with_options(held_out_size=items["held_out"])
    same = {"size": items["test"], "suite": suite, "minutes": None}
    return settings.model_copy(update=same)


def _table(recipe: Recipe, columns: Mapping[str, Any]) -> Table:
    if recipe.eval.suite.name == "rewards":
        return rewards_table(columns, "Rewards on held-back rows, with 95 % intervals")
    return suite_table(columns, "On held-back items, strict")


def _glimpse_of_rewards(session: TrainingSetup) -> dict[str, float]:
    """`eval/REWARD` and `eval/REWARD_greedy` on at most 256 rows, under the track's name where it has one."""
    recipe = session.recipe
    quick = {
        "size": min(256, recipe.eval.size),
        "samples_per_item": min(2, recipe.eval.samples_per_item),
        "minutes": None,
    }
    quickly = recipe.model_copy(update={"eval": recipe.eval.model_copy(update=quick)})
    numbers: dict[str, float] = {}
    for track, rewards in evaluate_tracks(replace(session, recipe=quickly)).table.items():
        prefix = f"eval/{track}/" if recipe.tracks else "eval/"
        for name, own in rewards.items():
            known = {f"{prefix}{name}": own["mean"], f"{prefix}{name}_greedy": own["greedy"]}
            numbers |= {key: value for key, value in known.items() if value is not None}
    return numbers


def _glimpse_of_shapes(session: TrainingSetup) -> dict[str, float]:
    recipe, policy = session.recipe, session.policy
    suite = recipe.eval.suite.with_options(held_out_size=32)
    quick = recipe.eval.model_copy(update={"size": 256, "suite": suite, "samples_per_item": 2, "minutes": None})
    table = evaluate_shapes(policy, quick, world_of(recipe), sampling_params(recipe)).table
    return {
        "eval/draw": table["draw"]["overall"],
        "eval/answer": table["answer"]["overall"],
        "eval/draw_greedy": table["greedy"]["draw"]["overall"],
        "eval/answer_greedy": table["greedy"]["answer"]["overall"],
    }


def world_of(recipe: Recipe) -> dict[str, Any]:
    """The shapes world's options: those of the first track that trains on the world, else the defaults."""
    sources = (track.data for track in recipe.resolved_tracks().values())
    return next((dict(data.options) for data in sources if data.source == "shapes"), {})


def _summary(
    recipe: Recipe, folder: RunFolder, progress: Progress, measured: dict[str, dict[str, Any] | None]
) -> dict[str, Any]:
    speeds = [line["images_per_second"] for line in folder.read_metrics() if line.get("images_per_second")]
    return {
        **measured,
        "seconds": round(progress.seconds, 1),
        "steps": progress.step,
        "images_per_second": round(statistics.fmean(speeds), 1) if speeds else None,
        "seed": recipe.run.seed,
    }


def _print_next_steps(desk: _RunContext, session: TrainingSetup, progress: Progress) -> None:
    checkpoint, folder = latest_checkpoint(desk.folder.checkpoints), desk.folder.path
    lines = [f"Trained {progress.step} steps in {progress.seconds:.0f} s: {checkpoint}"]
    if (folder / "before.png").is_file():
        lines.append(f"Pictures before and after: {folder / 'before.png'}, {folder / 'after.png'}")
    shapes = any(track.data.source == "shapes" for track in desk.recipe.resolved_tracks().values())
    if any(track.scenario.acts_making("image") for track in session.tracks):
        prompt = "two red circles" if shapes else "what to draw"
        lines.append(f'Try next: motet sample {shlex.quote(str(folder))} "{prompt}" --n 8 --out grid.png')
    else:
        question = "how many circles?" if shapes else "what to ask"
        lines.append(f'Try next: motet ask {shlex.quote(str(folder))} picture.png "{question}"')
    desk.say("\n".join(lines))
