"""The trainer of reinforcement learning: roll out, score, assign advantages, update, log."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from motet.config import AlgorithmConfig
from motet.core.errors import ConfigError
from motet.core.trajectory import Group, Scores
from motet.distributed.processes import Processes
from motet.distributed.shared_groups import is_remote_group, merge_values, share_groups, share_scores
from motet.report.callbacks import CallbackList, RolloutBatch
from motet.report.empty_rewards import STEPS, EmptyRewards
from motet.report.metrics import PhaseTimer, act_metrics, reward_metrics
from motet.report.rollouts import best_and_worst, save_best_and_worst
from motet.report.run_dir import WARNINGS, RunFolder
from motet.report.samples import failure_lines, save_samples, show_group
from motet.rewards import StepLog, score_groups
from motet.training.advantages import AssignedAdvantages, assign_advantages
from motet.training.background import BackgroundWork
from motet.training.batches import Stats
from motet.training.engines import LOCAL, Engines
from motet.training.policy_update import update
from motet.training.rollout import RolloutRequest
from motet.training.rollout_pipeline import Drawn, open_pipeline
from motet.training.run_loop import Progress, Run
from motet.training.setup import Track, TrainingSetup, sampling_params


@dataclass(eq=False)
class TrackBatch:
    """One track's part of a step: groups with their scores and advantages, and what the rewards logged.

    `discarded` are groups that dynamic sampling left out, `num_replaced` the ones that others took the place of.
    """

    track: Track
    groups: list[Group]
    scores: list[Scores]
    log: StepLog
    advantages: AssignedAdvantages
    discarded: list[tuple[Group, Scores]] = field(default_factory=list[tuple[Group, Scores]])
    num_replaced: int = 0

    @property
    def all_groups(self) -> list[Group]:
        """The discarded ones too."""
        return [*self.groups, *(group for group, _ in self.discarded)]

    @property
    def all_scores(self) -> list[Scores]:
        """Of `all_groups`."""
        return [*self.scores, *(scores for _, scores in self.discarded)]


_Scored = tuple[list[list[Scores]], list[StepLog]]


def train(session: TrainingSetup, run: Run, engines: Engines = LOCAL) -> Progress:
    """Train until the last step or an interruption. Returns where the run stands."""
    trainer = _Trainer(session, run, engines)
    try:
        with run:
            for step, timer in run.steps():
                trainer.train_step(step, timer)
    finally:
        trainer.close()
    return run.progress


class _Trainer:
    """The steps of a run. What a step sampled is kept no longer than the step."""

    def __init__(self, session: TrainingSetup, run: Run, engines: Engines) -> None:
        self.session, self.run, self.recipe, self.rollout = session, run, session.recipe, engines.rollout
        self.pipeline = open_pipeline(
            engines, session, self._draw_step, self._background_score, run.first, run.folder.checkpoints
        )
        if self.pipeline is not None:
            run.where = self.pipeline.where
            run.before_eval = self.pipeline.wait  # an evaluation may call the same rewards
        self.reward_seconds: float | None = None
        self.tracks_seen = {track.name for track in session.tracks} if run.first else set[str]()
        self.empty_rewards = EmptyRewards(min(STEPS, self.recipe.run.steps))
        if isinstance(run.callbacks, CallbackList):
            run.callbacks.add(self.empty_rewards, run.progress.callback_states)

    def close(self) -> None:
        """End what runs beside the steps."""
        if self.pipeline is not None:
            self.pipeline.close()

    def train_step(self, step: int, timer: PhaseTimer) -> None:
        """Roll out, score and assign advantages; update the policy; log."""
        with self.session.parallel.full_weights(self.session.policy):
            batches = self._sample(step, timer)
        self._check_first_step(batches)
        stats = self._update(batches, step, timer)
        self._log(batches, stats, step, timer)

    def _sample(self, step: int, timer: PhaseTimer) -> list[TrackBatch]:
        """The step's groups of each track with scores and advantages; of further prompts under dynamic sampling.

        Every process rolls out and scores its own share of the groups, and gets those of all processes.
        """
        tracks = self.session.tracks_at(step)
        if self.pipeline is None:
            batches = self._rollout(tracks, [track.prompts for track in tracks], step, timer)
        else:
            with timer.phase("rollout"), self.session.processes.phase("rollout"):
                taken = self.pipeline.take(step, self.session.policy)
            batches = self._score(tracks, taken.drawn, taken.groups, step, timer, taken.scoring)
        for _ in range(self.recipe.algorithm.dynamic_sampling or 0):
            flat = [batch for batch in batches if not all(batch.advantages.has_variance)]
            if not flat:
                break
            missing = [batch.advantages.has_variance.count(False) for batch in flat]
            fresh = self._rollout([batch.track for batch in flat], missing, step, timer)
            for batch, further in zip(flat, fresh, strict=True):
                _replace_groups(batch, further, self.recipe.algorithm)
        return batches

    def _rollout(
        self, tracks: Sequence[Track], num_prompts: Sequence[int], step: int, timer: PhaseTimer
    ) -> list[TrackBatch]:
        """Roll out the next prompts of some tracks together; score them and assign advantages track by track."""
        recipe, processes = self.recipe, self.session.processes
        with timer.phase("data"), processes.phase("data"):
            drawn = self._draw(tracks, num_prompts)
        with timer.phase("rollout"), processes.phase("rollout"):
            sampled = self.rollout(
                self.session.policy,
                drawn.requests,
                recipe.algorithm.num_generations,
                samplings=sampling_params(recipe, step),
                seed=recipe.run.seed,
                step=step,
            )
        return self._score(tracks, drawn, sampled, step, timer)

    def _draw_step(self, step: int) -> Drawn:
        tracks = self.session.tracks_at(step)
        return self._draw(tracks, [track.prompts for track in tracks])

    def _draw(self, tracks: Sequence[Track], num_prompts: Sequence[int]) -> Drawn:
        """The next prompts of some tracks, and this process's share of them."""
        tasks = [track.cursor.next(P) for track, P in zip(tracks, num_prompts, strict=True)]
        placed = [(number, task) for number, own in enumerate(tasks) for task in own]  # shared out over all tracks
        mine = self.session.processes.own(placed)
        requests = [
            RolloutRequest(track.scenario, [task for of, task in mine if of == number], track.number)
            for number, track in enumerate(tracks)
        ]
        return Drawn(requests, placed, [track.cursor.epoch for track in tracks], self.session.data_state())

    def _background_score(self, step: int, drawn: Drawn) -> Callable[[list[list[Group]]], _Scored] | None:
        """What computes the rewards of a step on another thread; None where that needs the policy."""
        tracks = self.session.tracks_at(step)
        if any(reward.needs_policy for track in tracks for reward in track.rewards):
            return None
        return lambda sampled: _call_rewards(tracks, drawn, sampled, step, self.recipe.run.steps)

    def _score(
        self,
        tracks: Sequence[Track],
        drawn: Drawn,
        sampled: list[list[Group]],
        step: int,
        timer: PhaseTimer,
        scoring: BackgroundWork[_Scored] | None = None,
    ) -> list[TrackBatch]:
        """Score this process's groups, share all of them, and assign advantages. `scoring`: scores under way."""
        recipe, processes, placed = self.recipe, self.session.processes, drawn.placed
        with timer.phase("rewards"), processes.phase("rewards"):
            if scoring is None:
                scored, logs = _call_rewards(tracks, drawn, sampled, step, self.recipe.run.steps)
            else:
                scored, logs = scoring.result()
                self.reward_seconds = scoring.seconds
        groups = share_groups(processes, [task for _, task in placed], list(chain(*sampled)))
        scores = share_scores(processes, list(chain(*scored)))
        batches: list[TrackBatch] = []
        for number, (track, log) in enumerate(zip(tracks, logs, strict=True)):
            own = [n for n, (of, _) in enumerate(placed) if of == number]
            log.values = merge_values(processes, log.values)
            batch = [groups[n] for n in own], [scores[n] for n in own]
            advantages = assign_advantages(*batch, track.rewards, recipe.algorithm)
            batches.append(TrackBatch(track, *batch, log, advantages))
        return batches

    def _update(self, batches: Sequence[TrackBatch], step: int, timer: PhaseTimer) -> Stats:
        groups = [group for batch in batches for group in batch.groups]
        acts = [act for batch in batches for act in batch.advantages.acts]
        lag: Stats = {}
        if self.pipeline is not None:
            lag = {"policy_version_lag": float(self.session.policy.version - self.pipeline.version)}
        if self.reward_seconds is not None:
            lag["time/reward_calls"] = self.reward_seconds
        with timer.phase("learn"):
            stats = update(self.session.policy, self.session.optimizer, groups, acts, self.recipe, step)
        return {**stats, **lag}

    def _log(self, batches: Sequence[TrackBatch], stats: Stats, step: int, timer: PhaseTimer) -> None:
        run = self.run
        metrics = {key: value for batch in batches for key, value in self._metrics(batch).items()}
        groups = [group for batch in batches for group in batch.all_groups]
        seconds = timer.seconds["rollout"] if self.pipeline is None else self.pipeline.seconds
        metrics |= {**act_metrics(groups, seconds), **stats}
        failures = [
            line
            for batch in batches
            for line in failure_lines(step, batch.all_groups, batch.all_scores, batch.track.name)
        ]
        run.report(step, {**metrics, **self._tell_callbacks(step, batches, timer)}, failures)
        for batch in batches:
            track = batch.track
            if (step + 1) % self.recipe.run.log_samples_every == 0:
                _save_samples(self.session.processes, run.folder, step + 1, batch)
            for message in self.empty_rewards.check(track.name, batch.all_groups, batch.all_scores, track.rewards):
                run.folder.append_line(WARNINGS, {"step": step, "message": message})
                if self.session.processes.is_main:
                    warnings.warn(message, stacklevel=2)

    def _tell_callbacks(self, step: int, batches: Sequence[TrackBatch], timer: PhaseTimer) -> Mapping[str, float]:
        """Show callbacks what was rolled out; the metrics that they return."""
        callbacks = self.run.callbacks
        if not (isinstance(callbacks, CallbackList) and callbacks.has("on_rollout")):
            return {}
        shown: list[RolloutBatch] = []
        for batch in batches:
            own = [p for p, group in enumerate(batch.groups) if not is_remote_group(group)]
            groups, scores = [batch.groups[p] for p in own], [batch.scores[p] for p in own]
            weights = {reward.name: reward.weight for reward in batch.track.rewards}
            shown.append(RolloutBatch(batch.track.name, groups, scores, weights))
        with timer.phase("callbacks"):
            return callbacks.on_rollout(step + 1, shown)

    def _metrics(self, batch: TrackBatch) -> dict[str, float]:
        """Rewards of all that was rolled out, and the assignment of what is trained on; under the track's name."""
        weights = {reward.name: reward.weight for reward in batch.track.rewards}
        logged = {f"rewards/{name}": value for name, value in batch.log.metrics.items()}
        metrics = {**reward_metrics(batch.all_scores, weights), **logged, **batch.advantages.stats}
        if self.recipe.algorithm.dynamic_sampling is not None:
            metrics |= {"groups_replaced": batch.num_replaced, "groups_discarded": len(batch.discarded)}
        prefix = f"{batch.track.name}/" if batch.track.name else ""
        return {f"{prefix}{key}": float(value) for key, value in metrics.items()}

    def _check_first_step(self, batches: Sequence[TrackBatch]) -> None:
        """A failed rollout is data; when all of a track's first step fail, the scenario or the rewards are wrong."""
        for batch in batches:
            if batch.track.name in self.tracks_seen:
                continue
            self.tracks_seen.add(batch.track.name)
            failures = [failure for score in batch.scores for failure in score.dropped.values()]
            total = sum(len(group.trajectories) for group in batch.groups)
            if len(failures) == total:
                raise ConfigError(
                    f"All {total} trajectories of the first step failed, the first of them in the "
                    f"{failures[0].where}: {failures[0].message}.",
                    fix=f"correct the scenario {batch.track.scenario.name!r}, the rewards or the data.",
                )


def _call_rewards(tracks: Sequence[Track], drawn: Drawn, sampled: list[list[Group]], step: int, steps: int) -> _Scored:
    """The scores of this process's groups, and what the rewards logged, track by track."""
    logs = [StepLog(step, steps, epoch) for epoch in drawn.epochs]
    scored = [
        score_groups(groups, track.rewards, log) for track, groups, log in zip(tracks, sampled, logs, strict=True)
    ]
    return scored, logs


def _replace_groups(batch: TrackBatch, further: TrackBatch, algorithm: AlgorithmConfig) -> None:
    """Put the further groups that have reward variance in the place of those that have none (DAPO, section 3.2)."""
    flat = [p for p, varies in enumerate(batch.advantages.has_variance) if not varies]
    for group, scores, varies in zip(further.groups, further.scores, further.advantages.has_variance, strict=True):
        if varies:
            p = flat.pop(0)
            batch.discarded.append((batch.groups[p], batch.scores[p]))
            batch.groups[p], batch.scores[p] = group, scores
            batch.num_replaced += 1
        else:
            batch.discarded.append((group, scores))
    for name, values in further.log.values.items():
        batch.log.values.setdefault(name, []).extend(values)
    batch.advantages = assign_advantages(batch.groups, batch.scores, batch.track.rewards, algorithm)


def _save_samples(processes: Processes, folder: RunFolder, step: int, batch: TrackBatch) -> None:
    """Write samples of the groups of all processes; each process shows its own."""
    rewards, advantages = batch.track.rewards, batch.advantages.acts
    own = {
        n: (show_group(group, scores, rewards), best_and_worst(group, scores, rewards, advantages))
        for n, (group, scores) in enumerate(zip(batch.groups, batch.scores, strict=True))
        if not is_remote_group(group)
    }
    gathered = {n: group for part in processes.all_gather(own) for n, group in part.items()}
    if processes.is_main:
        shown = [gathered[n] for n in sorted(gathered)]
        save_samples(folder, step, [samples for samples, _ in shown], batch.track.name)
        rollouts = [rollout for _, extremes in shown for rollout in extremes]
        save_best_and_worst(folder, step, rollouts, batch.track.name)
