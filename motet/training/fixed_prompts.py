"""One rollout of each of the same few prompts every so many steps, with the same noise: what training changes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

from motet.core.errors import MotetError
from motet.core.registry import first_line
from motet.core.task import Task
from motet.report.rollouts import FIXED_PROMPTS, save_rollouts, show_rollout
from motet.report.run_dir import RunFolder
from motet.training.rollout import rollout
from motet.training.run_loop import RunProbe
from motet.training.setup import Track, TrainingSetup, sampling_params

PROMPTS = 8
"""Prompts in all, of all tracks together."""


@dataclass(eq=False)
class FixedPrompts:
    """The first rows of every track's data, rolled out with the weights of several steps and saved in the run folder.

    Their noise is keyed by row, as that of training is, so that training samples what it would have without them.
    """

    session: TrainingSetup
    folder: RunFolder
    _tasks: list[list[Task]] = field(default_factory=list)

    @property
    def probes(self) -> list[RunProbe]:
        """For a run: every `run.log_samples_every` steps, and before the first; none if the run is shorter."""
        run = self.session.recipe.run
        return [(run.log_samples_every, self.record)] if run.steps >= run.log_samples_every else []

    def record_last(self, step: int) -> None:
        """The same after the last step, `step`, unless it was one of those."""
        if self.probes and step % self.probes[0][0]:
            self.record(step)

    def record(self, step: int) -> dict[str, float]:
        """Roll out and save, when `step` steps are done; the main process alone. A failure is a warning.

        Returns no metrics: a run calls it as it calls the evaluations of monitors.
        """
        session = self.session
        with session.parallel.full_weights(session.policy), session.processes.phase("fixed prompts"):
            if session.processes.is_main:
                try:
                    self._record(step)
                except Exception as error:  # the run does not depend on them
                    why = error.problem if isinstance(error, MotetError) else f"{first_line(error)}."
                    warnings.warn(f"The fixed prompts were not rolled out after step {step}: {why}", stacklevel=2)
        return {}

    def _record(self, step: int) -> None:
        tracks, recipe = self.session.tracks, self.session.recipe
        each = max(1, PROMPTS // len(tracks))
        self._tasks = self._tasks or [_first_tasks(track, each) for track in tracks]
        for track, tasks in zip(tracks, self._tasks, strict=True):
            samplings, seed = sampling_params(recipe), recipe.run.seed
            groups = rollout(
                self.session.policy,
                track.scenario,
                tasks,
                1,
                samplings=samplings,
                seed=seed,
                step=0,
                track=track.number,
            )
            shown = [show_rollout(group.trajectories[0]) for group in groups if group.valid_indices]
            save_rollouts(self.folder, FIXED_PROMPTS, step, {"prompts": shown}, track.name)


def _first_tasks(track: Track, number: int) -> list[Task]:
    rows = track.cursor.rows
    return [rows.task(i) for i in range(number if rows.size is None else min(number, rows.size))]
