"""What every run does around its steps: resume, write metrics, save checkpoints, stop when asked to."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, ClassVar

from torch import Tensor

from motet.core.errors import CheckpointError
from motet.distributed.parallel import Parallel
from motet.report.callbacks import Callback, CallbackList, StopTraining
from motet.report.metrics import PhaseTimer, memory_metrics
from motet.report.run_dir import FAILURES, METRICS, RunFolder, metrics_line
from motet.training.checkpoint import Progress, restore, save_checkpoint
from motet.training.random_state import RandomStates
from motet.training.setup import TrainingSetup
from motet.training.signals import Interrupt
from motet.training.threads import ThreadTuner
from motet.training.time_budget import Pace
from motet.weights.locate import latest_checkpoint

Evaluate = Callable[[], dict[str, float]]
"""A quick evaluation on validation items, for the learning curve."""
RunProbe = tuple[int, Callable[[int], Mapping[str, float]]]
"""A callback's evaluation: the steps between two of them, and what evaluates after a number of steps."""


class Run:
    """The keeping of a run in its folder.

    with run:
        for step, timer in run.steps():
            ...
            run.report(step, metrics)

    `timer_type` is what times the phases of a step.

    An error on the way out of the block saves the last whole step, unless the newest checkpoint is that already.
    """

    timer_type: ClassVar[type[PhaseTimer]] = PhaseTimer

    def __init__(
        self,
        session: TrainingSetup,
        folder: RunFolder,
        callbacks: Callback,
        interrupt: Interrupt,
        evaluate: Evaluate | None = None,
        threads: ThreadTuner | None = None,
        *,
        probes: Sequence[RunProbe] = (),
    ) -> None:
        self.session, self.folder, self.callbacks, self.interrupt = session, folder, callbacks, interrupt
        self.evaluate, self.probes = evaluate, probes
        self.stopped_by: StopTraining | None = None
        """Why a callback ended the run, in every process."""
        self.threads = threads  # None: their number stays as it is
        self.processes = session.processes
        self.where: Callable[[], tuple[dict[str, Any], Mapping[str, Tensor]]] = lambda: (session.data_state(), {})
        """Where the tracks stand in their data after the step that was done last, and weights of further rollouts."""
        self.before_eval: Callable[[], None] = lambda: None
        """Called before an evaluation."""
        self._random_states = RandomStates(self.processes.rank, self.processes.size)
        self.progress = self._resume()
        self.first = self._saved = self.progress.step
        self._optimizer_steps = session.optimizer.num_steps  # optimizer steps at `progress`
        self._lines: list[tuple[str, Mapping[str, Any]]] = []  # of `progress`, not written yet
        self.pace = Pace(session.recipe.run, self.first, self.progress.seconds)
        self._saved_at = time.monotonic()
        self._timer = self.timer_type()
        self.finished = self.first >= self.processes.broadcast(self.pace.steps)
        """Whether no step remains: seen after every step, since the clock can move the end."""

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A second Ctrl-C does not wait; where a checkpoint could not be written, it would fail again.
        if error is not None and not isinstance(error, KeyboardInterrupt | CheckpointError):
            self._rescue()

    def steps(self) -> Iterator[tuple[int, PhaseTimer]]:
        """The steps that remain, each with its timer. After a step a checkpoint is saved if one is due.

        Ends after the last step, or after the step in which an interruption came.
        """
        optimizer = self.session.optimizer
        updates = optimizer.total_steps // self.session.recipe.run.steps
        if self.first == 0 and not self.finished:
            for _, probe in self.probes:
                probe(0)
        self.pace.start()
        while not self.finished:
            # Where the schedule ends, by the clock of rank 0, which can have run out since the step was decided on.
            optimizer.total_steps = updates * self.processes.broadcast(max(self.pace.steps, self.pace.done + 1))
            self._timer, self.processes.step = self.timer_type(), self.progress.step
            yield self.progress.step, self._timer
            last, due = self._agree_on_end()
            if last or due:
                self._save_together()
            if last:
                self.processes.step = None
                return
            if self.threads is not None:
                self.threads.adapt()

    def _agree_on_end(self) -> tuple[bool, bool]:
        """Whether this was the last step, and whether a checkpoint is due: the clock of rank 0 says so for all."""
        stop = self.callbacks.stop if isinstance(self.callbacks, CallbackList) else None
        due = self._due(self.pace.done) or self.callbacks.wants_checkpoint
        vote = (self.interrupt.asked, self.pace.steps, due, stop, self._random_states.news())
        votes = self.processes.all_gather(vote)
        _, num_steps, due, self.stopped_by, _ = votes[0]
        random_states = self._random_states.share([state for *_, state in votes])
        callback_states = self.callbacks.state_dict()
        self.progress = replace(self.progress, random_states=random_states, callback_states=callback_states)
        self.finished = self.pace.done >= num_steps
        return self.finished or self.stopped_by is not None or any(asked for asked, *_ in votes), due

    def report(self, step: int, metrics: Mapping[str, float], failures: Sequence[Mapping[str, Any]] = ()) -> None:
        """A step is done: write its metrics, with its times, and its failed trajectories; call the callbacks.

        Every `eval.every` steps the metrics of `evaluate` are among them; if it raises, the step counts without them.
        """
        every = self.session.recipe.eval.every
        if self.evaluate is not None and every is not None and (step + 1) % every == 0:
            self._note(step, metrics, failures)
            self.before_eval()
            with self._timer.phase("eval"):
                evaluated = self.evaluate()
            self.callbacks.on_eval(step + 1, evaluated)
            metrics = {**metrics, **evaluated}
        for every, probe in self.probes:
            if (step + 1) % every == 0:
                self._note(step, metrics, failures)
                with self._timer.phase("eval"):
                    metrics = {**metrics, **probe(step + 1)}
        metrics = self._note(step, metrics, failures)
        self.pace.step_done()
        self._write_lines()
        self.callbacks.on_step_end(step + 1, metrics)

    def _note(
        self, step: int, metrics: Mapping[str, float], failures: Sequence[Mapping[str, Any]]
    ) -> Mapping[str, float]:
        """From here on this is the last whole step. Returns its metrics with its times."""
        data_state, rollout_weights = self.where()
        self.progress = Progress(
            step + 1,
            self.pace.seconds,
            data_state,
            rollout_weights,
            random_states=self._random_states.with_own(),
            callback_states=self.callbacks.state_dict(),
        )
        self._optimizer_steps = self.session.optimizer.num_steps
        metrics = {**metrics, **self._timer.report(), **memory_metrics(), "seconds": self.progress.seconds}
        self._lines = [(METRICS, metrics_line(step, metrics)), *((FAILURES, failure) for failure in failures)]
        return metrics

    def _due(self, done: int) -> bool:
        settings = self.session.recipe.run
        if settings.save_every is not None and done % settings.save_every == 0:
            return True
        minutes = (time.monotonic() - self._saved_at) / 60
        return settings.save_minutes is not None and minutes >= settings.save_minutes

    def _save_together(self) -> None:
        """Save with all processes at one point; each writes what it alone has."""
        parallel = self.session.parallel
        if not parallel.saves_alone:
            self._save(parallel)
            return
        with self.processes.phase("checkpoint"):
            if self.processes.is_main:
                self._save()

    def _save(self, parallel: Parallel | None = None) -> None:
        self.folder.sync_lines()
        keep = self.session.recipe.run.keep_checkpoints
        session, progress = self.session, self.progress
        folder, optimizer = self.folder.checkpoints, session.optimizer
        checkpoint = save_checkpoint(folder, session.policy, optimizer, progress, keep, parallel)
        self._saved, self._saved_at = progress.step, time.monotonic()
        self.callbacks.on_checkpoint(progress.step, checkpoint)

    def _rescue(self) -> None:
        """Save the last whole step, if it is still in memory of the main process: no optimizer step came after it."""
        has_all = self.processes.is_main and self.session.parallel.saves_alone
        in_memory = self.session.optimizer.num_steps == self._optimizer_steps
        if not has_all or not in_memory or self.progress.step == self._saved:
            return
        try:
            self._write_lines()
            self._save()
        except Exception as error:  # whatever it is, the error that ended the run is the one to be told
            warnings.warn(f"Step {self.progress.step} could not be saved: {error}", stacklevel=2)

    def _write_lines(self) -> None:
        while self._lines:
            self.folder.append_line(*self._lines[0])
            del self._lines[0]

    def _resume(self) -> Progress:
        """Continue the folder's newest checkpoint, if it has one."""
        session = self.session
        progress = Progress(0, 0.0, session.data_state())
        newest = self.processes.broadcast(latest_checkpoint(self.folder.checkpoints))
        with self.processes.phase("resume"):
            if newest is not None:
                progress = restore(newest, session.policy, session.optimizer, session.parallel)
                session.load_data_state(progress.data_state)
                self.callbacks.load_state_dict(progress.callback_states)
            self._random_states.begin(session.recipe.run.seed, progress.random_states)
            self.folder.truncate_metrics(progress.step)
        return progress
