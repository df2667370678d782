"""The evaluations of a run: before and after training, the check of its images, the table and the summary."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Mapping
from typing import Any

from motet.config import Recipe
from motet.evaluation.reconstruction import reconstruct_sample, reconstruction_grid
from motet.experiments.run_context import RunContext
from motet.report.image_grid import count_correct, make_image_grid, save_image
from motet.report.run_dir import RunFolder
from motet.training.checkpoint import Progress
from motet.training.setup import TrainingSetup
from motet.training.suites import SuiteResult, SuiteSettings, evaluate
from motet.weights.locate import latest_checkpoint

RECONSTRUCTION = "reconstruction.png"


def check_images(context: RunContext, session: TrainingSetup) -> None:
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


def evaluate_before(context: RunContext, session: TrainingSetup, known: dict[str, Any] | None) -> dict[str, Any] | None:
    """The evaluation before the first step: read from the run folder, given as `known`, or made now.

    None without a suite, or if a run without it is resumed.
    """
    processes, checkpoints = context.processes, context.folder.checkpoints
    before = processes.broadcast(context.folder.read_json("before.json") or known)
    if before is None and processes.broadcast(latest_checkpoint(checkpoints)) is None:
        before = evaluate_suite(context, session, "before")
    if before is not None:
        context.folder.write_json("before.json", before)
    return before


def evaluate_suite(
    context: RunContext, session: TrainingSetup, name: str, like: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Run the suite, if there is one, and write `<name>.png`. An interruption stops it at once.

    It uses as many items as the evaluation `like`, if given, and as `eval` says otherwise.
    """
    suite = context.suite
    if suite is None:
        return None
    minutes = context.recipe.eval.minutes if like is None else None  # the same items again have no time limit
    seconds = None if minutes is None else 60 * minutes

    def on_progress(done: int, total: int) -> None:
        if context.processes.any(context.interrupt.asked):
            raise KeyboardInterrupt
        if context.threads is not None:
            context.threads.adapt()
        context.bar.items(f"evaluate {name}", done, total, seconds)

    if context.threads is not None:
        context.threads.adapt()  # to what the checks before it met: the first batch may take minutes
    context.bar.phase(f"evaluate {name}")
    result = evaluate(suite, session.policy, SuiteSettings(session, same_items_as=like, progress=on_progress))
    context.callbacks.on_eval(context.callbacks.last[0], eval_metrics(result))
    if result.samples and context.processes.is_main:
        images, prompts, correct = zip(*result.samples, strict=True)
        title = ": ".join(part for part in (f"{name} training", count_correct(correct), suite.samples_title) if part)
        grid = make_image_grid(images, prompts, correct, title=title)
        path = context.folder.path / f"{name}.png"
        try:
            save_image(grid, path)
        except OSError as error:  # the results are still returned
            warnings.warn(f"{str(path)!r} is not saved: {error.strerror or error}.", stacklevel=2)
    return result.table


def print_table(context: RunContext, tables: Mapping[str, dict[str, Any] | None]) -> None:
    evaluated = {heading: table for heading, table in tables.items() if table is not None}
    if context.suite is not None and evaluated:
        context.console.print(context.suite.show(evaluated))


def eval_metrics(result: SuiteResult) -> dict[str, float]:
    """`eval/NAME` of every metric, and `eval/NAME/interval` of those whose interval over items is known."""
    intervals = {f"eval/{name}/interval": half for name, half in result.intervals.items() if math.isfinite(half)}
    return {**{f"eval/{name}": value for name, value in result.metrics.items()}, **intervals}


def make_summary(
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
