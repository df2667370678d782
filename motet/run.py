"""What every run does around its steps: resume, write numbers, save checkpoints, stop when asked to."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from motet.checkpoint import Progress, restore, save_checkpoint
from motet.interrupt import Interrupt
from motet.report.folder import RunFolder
from motet.report.steps import Stopwatch, Watcher
from motet.saved import latest_checkpoint
from motet.session import Session

Measure = Callable[[], dict[str, float]]
"""A quick look at the policy on held-back items, for the learning curve."""


class Run:
    """The keeping of a run in its folder.

    for step, watch in run.steps():
        ...
        run.report(step, numbers)
    """

    def __init__(
        self,
        session: Session,
        folder: RunFolder,
        watcher: Watcher,
        interrupt: Interrupt,
        measure: Measure | None = None,
    ) -> None:
        self.session, self.folder, self.watcher, self.interrupt = session, folder, watcher, interrupt
        self.measure = measure
        self.progress = self._resume()
        self.first = self.progress.step
        self._began = time.monotonic() - self.progress.seconds
        self._watch = Stopwatch()

    def steps(self) -> Iterator[tuple[int, Stopwatch]]:
        """The steps that remain, each with its stopwatch. After a step a checkpoint is saved if one is due.

        Ends after the last step, or after the step in which an interruption came. An error inside a step saves nothing:
        the newest checkpoint is that of a whole step.
        """
        settings = self.session.recipe.run
        for step in range(self.first, settings.steps):
            self._watch = Stopwatch()
            yield step, self._watch
            done = step + 1
            self.progress = Progress(done, self._seconds(), self.session.cursors())
            due = settings.save_every is not None and done % settings.save_every == 0
            if due or done == settings.steps or self.interrupt.asked:
                learner, keep = self.session.learner, settings.keep_checkpoints
                save_checkpoint(self.folder.checkpoints, self.session.policy, learner, self.progress, keep)
            if self.interrupt.asked:
                return

    def report(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write a step's numbers, with its times, as a line of metrics and to the watcher.

        Every `eval.every` steps the numbers of `measure` are among them.
        """
        every = self.session.recipe.eval.every
        if self.measure is not None and every is not None and (step + 1) % every == 0:
            with self._watch.phase("eval"):
                numbers = {**numbers, **self.measure()}
        numbers = {**numbers, **self._watch.report(), "seconds": self._seconds()}
        self.folder.append_metrics(step, numbers)
        self.watcher.step(step + 1, self.session.recipe.run.steps, numbers)

    def _resume(self) -> Progress:
        """Continue the folder's newest checkpoint, if it has one."""
        session = self.session
        progress = Progress(0, 0.0, session.cursors())
        newest = latest_checkpoint(self.folder.checkpoints)
        if newest is not None:
            progress = restore(newest, session.policy, session.learner)
            session.move_cursors(progress.cursors)
        self.folder.forget_steps_from(progress.step)
        return progress

    def _seconds(self) -> float:
        return time.monotonic() - self._began
