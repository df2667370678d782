"""What all phases of a run use: its recipe, folder, progress bar and callbacks; and how a run ends by an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from motet.config import Recipe, to_yaml
from motet.core.errors import MotetError, NumericsError
from motet.core.printable import plural
from motet.distributed.processes import Processes
from motet.experiments.run_report import with_report
from motet.report.callbacks import CallbackList, resolve_callbacks
from motet.report.progress import ProgressBar
from motet.report.resume_check import starting_weights
from motet.report.run_dir import RunFolder
from motet.report.terminal import Terminal
from motet.report.trackers.tracking import Tracking, resolve_trackers
from motet.report.versions import record_versions
from motet.training.signals import Interrupt, Stopped
from motet.training.suites import Suite, resolve_suite
from motet.training.threads import ThreadTuner
from motet.weights.locate import latest_checkpoint, step_of


@dataclass(frozen=True)
class RunContext:
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

    def say(self, *lines: str) -> None:
        """Print the lines that are not empty."""
        for line in filter(None, lines):
            self.console.say(line)


@contextmanager
def run_context(recipe: Recipe, folder: RunFolder, resume_command: str, processes: Processes) -> Iterator[RunContext]:
    """Create the folder, show the progress bar and catch Ctrl-C; of several processes the main one does.

    An error before the first step is finished removes the folder; later errors name the newest checkpoint.
    """
    console, suite = Terminal(quiet=not processes.is_main), resolve_suite(recipe)
    registered = _callbacks(recipe) if processes.is_main else []
    threads = ThreadTuner() if recipe.run.threads is None else None
    with processes.phase("folder"):
        folder.create(to_yaml(recipe), starting_weights(recipe))
        if processes.is_main:
            (folder.path / "summary.json").unlink(missing_ok=True)  # left by a shorter run
            newest = latest_checkpoint(folder.checkpoints)
            record_versions(folder, 0 if newest is None else step_of(newest))
    try:
        with (
            with_report(folder, console, is_main=processes.is_main),
            ProgressBar(console) as bar,
            Interrupt() as interrupt,
        ):
            callbacks = CallbackList([bar, *registered] if processes.is_main else [])
            with processes.phase("callbacks"):
                callbacks.on_run_start(recipe, folder.path)
            try:
                yield RunContext(
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


def _callbacks(recipe: Recipe) -> list[Any]:
    """Those that the recipe names, then its trackers: they see what happens before them."""
    trackers = resolve_trackers(recipe.run.report_to)
    return [*resolve_callbacks(recipe.run.callbacks), *([Tracking(trackers)] if trackers else [])]


def _saved_so_far(folder: RunFolder) -> str:
    newest = latest_checkpoint(folder.checkpoints)
    done = len(folder.read_metrics())
    saved = "no checkpoint is saved yet" if newest is None else f"the newest checkpoint is {str(newest)!r}"
    return f"(After {plural(done, 'step')}; {saved}.)"
