"""One rollout of each of the same few prompts every so many steps, with the same noise: what training changes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

from motet.config import Recipe
from motet.core.errors import MotetError
from motet.core.registry import first_line
from motet.core.task import Task
from motet.core.trajectory import Group, Scores
from motet.data import WITH_TEST_SPLIT, Rows, open_rows
from motet.report.callbacks import Callback, RolloutBatch
from motet.report.rollouts import FIXED_PROMPTS, ShownRollout, save_rollouts, show_rollout, show_scored
from motet.report.run_dir import RunFolder
from motet.rewards import BoundReward, StepLog, score_groups
from motet.training.rollout import rollout
from motet.training.run_loop import RunProbe
from motet.training.setup import Track, TrainingSetup, eval_rows, needs_rewards, sampling_params

PROMPTS = 8
"""Prompts in all, of all tracks together."""


@dataclass(frozen=True)
class Prompts:
    """The prompts of a track; `source` has them, and `in_training` says whether training sees them."""

    tasks: list[Task]
    source: str
    in_training: bool


@dataclass(eq=False)
class FixedPrompts:
    """The first validation rows of every track, rolled out with the weights of several steps, saved with rewards.

    They are those on which the suite `rewards` evaluates; under another suite those of the split `test` of a built-in
    source; where there is neither, rows of the training data. Rows and noise are keyed by `eval.seed`: training samples
    what it would have without them, and runs that differ in `run.seed` show the same. Callbacks are shown them too.
    """

    session: TrainingSetup
    folder: RunFolder
    callbacks: Callback
    _prompts: list[Prompts] = field(default_factory=list[Prompts])

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
        """Roll out, score and save, when `step` steps are done; the main process alone. A failure is a warning.

        Returns no metrics: a run calls it as it calls the evaluations of monitors.
        """
        session = self.session
        with session.parallel.full_weights(session.policy), session.processes.phase("fixed prompts"):
            if session.processes.is_main:
                try:
                    self._record(step)
                except Exception as error:  # the run does not depend on them
                    why = _reason(error)
                    warnings.warn(f"The fixed prompts were not rolled out after step {step}: {why}", stacklevel=2)
        return {}

    def _record(self, step: int) -> None:
        tracks, recipe = self.session.tracks, self.session.recipe
        batches: list[RolloutBatch] = []
        each = max(1, PROMPTS // len(tracks))
        self._prompts = self._prompts or [first_prompts(recipe, track, each) for track in tracks]
        for track, prompts in zip(tracks, self._prompts, strict=True):
            groups = rollout(
                self.session.policy,
                track.scenario,
                prompts.tasks,
                1,
                samplings=sampling_params(recipe),
                seed=recipe.eval.seed,
                step=0,
                track=track.number,
            )
            valid = [group for group in groups if group.valid_indices]
            scores = score(valid, track.rewards, step, recipe.run.steps)
            shown = show(valid, scores, track.rewards)
            about = {"rows": {"source": prompts.source, "in_training": prompts.in_training}}
            save_rollouts(self.folder, FIXED_PROMPTS, step, {"prompts": shown}, track.name, about)
            weights = {reward.name: reward.weight for reward in track.rewards}
            batches.append(RolloutBatch(track.name, valid, scores, weights))
        self.callbacks.on_fixed_prompts(step, batches)


def score(groups: Sequence[Group], rewards: Sequence[BoundReward], step: int, steps: int) -> list[Scores]:
    """The scores of rollouts; none, with a warning, if there are no rewards or one fails.

    Rewards that depend on the step are those of the last of `steps`: so they are comparable.
    """
    if not rewards:
        return []
    try:
        return score_groups(groups, rewards, StepLog(steps, steps))
    except Exception as error:
        warnings.warn(f"The fixed prompts were not scored after step {step}: {_reason(error)}", stacklevel=2)
        return []


def show(groups: Sequence[Group], scores: Sequence[Scores], rewards: Sequence[BoundReward]) -> list[ShownRollout]:
    """The rollouts, with their rewards if there are scores."""
    if not scores:
        return [show_rollout(group.trajectories[0]) for group in groups]
    return [show_scored(group, 0, own, rewards) for group, own in zip(groups, scores, strict=True)]


def first_prompts(recipe: Recipe, track: Track, number: int) -> Prompts:
    """The first `number` rows to show, or all there are."""
    validation = _validation_rows(recipe, track)
    rows = track.cursor.rows if validation is None else validation
    tasks = [rows.task(i) for i in range(number if rows.size is None else min(number, rows.size))]
    return Prompts(tasks, rows.source.name, validation is None)


def _validation_rows(recipe: Recipe, track: Track) -> Rows | None:
    """Rows that training does not see; None where the recipe has none."""
    if needs_rewards(recipe):
        return eval_rows(recipe, track)
    data = recipe.resolved_tracks()[track.name].data
    if data.source not in WITH_TEST_SPLIT or data.split == "test":
        return None
    test = data.model_copy(update={"split": "test", "size": None})
    return open_rows(test, track.scenario.columns, seed=recipe.eval.seed, check=False)


def _reason(error: Exception) -> str:
    return error.problem if isinstance(error, MotetError) else f"{first_line(error)}."
