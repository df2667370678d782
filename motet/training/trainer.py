"""The loop of reinforcement learning: play, score, credit, learn, report."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from motet.core.errors import ConfigError
from motet.core.trajectory import Group, Scores
from motet.report.empty_rewards import STEPS, EmptyRewards
from motet.report.metrics import PhaseTimer, act_metrics, reward_metrics
from motet.report.run_dir import WARNINGS
from motet.report.samples import failure_lines, save_samples
from motet.rewards import StepLog, score_groups
from motet.training.advantages import AssignedAdvantages, assign_advantages
from motet.training.policy_update import update
from motet.training.rollout import RolloutRequest, rollout_tracks
from motet.training.run_loop import Progress, Run
from motet.training.setup import Track, TrainingSetup, sampling_params


@dataclass(frozen=True, eq=False)
class TrackBatch:
    """What a step saw of one track: played, judged (`log`: what the rewards logged), credited."""

    track: Track
    groups: list[Group]
    scores: list[Scores]
    log: StepLog
    credit: AssignedAdvantages


def train(session: TrainingSetup, run: Run) -> Progress:
    """Play, score, credit, learn, report; until the last step or an interruption. Returns where the run stands."""
    tracks_seen = {track.name for track in session.tracks} if run.first else set[str]()
    empty = EmptyRewards(min(STEPS, session.recipe.run.steps) if not run.first else 0)
    with run:
        for step, watch in run.steps():
            _step(session, run, step, watch, tracks_seen, empty)
    return run.progress


def _step(
    session: TrainingSetup, run: Run, step: int, watch: PhaseTimer, tracks_seen: set[str], empty: EmptyRewards
) -> None:
    """One step; with its rollout goes what is kept as long as acts are. `tracks_seen`: the tracks that have had a
    step, in this process or before it."""
    rounds = _play(session, step, watch)
    for played in rounds:
        if played.track.name not in tracks_seen:
            _raise_if_all_failed(played)
            tracks_seen.add(played.track.name)
    groups = [group for played in rounds for group in played.groups]
    credited = [act for played in rounds for act in played.credit.acts]
    with watch.phase("learn"):
        stats = update(session.policy, session.learner, groups, credited, session.recipe, step)
    numbers = {key: value for played in rounds for key, value in _metrics(played).items()}
    failures = [line for one in rounds for line in failure_lines(step, one.groups, one.scores, one.track.name)]
    run.report(step, {**numbers, **act_metrics(groups, watch.seconds["rollout"]), **stats}, failures)
    for played in rounds:
        if (step + 1) % session.recipe.run.log_samples_every == 0:
            track = played.track
            save_samples(run.folder, step + 1, played.groups, played.scores, track.rewards, track.name)
        for message in empty.check(played.track.name, played.groups, played.scores, played.track.rewards):
            run.folder.append_line(WARNINGS, {"step": step, "message": message})
            warnings.warn(message, stacklevel=2)


def _play(session: TrainingSetup, step: int, watch: PhaseTimer) -> list[TrackBatch]:
    """The tracks of a step: played together, judged and credited each on its own."""
    recipe, tracks = session.recipe, session.tracks_at(step)
    with watch.phase("data"):
        requests = [RolloutRequest(track.scenario, track.cursor.next(track.prompts), track.number) for track in tracks]
    with watch.phase("rollout"):
        played = rollout_tracks(
            session.policy,
            requests,
            recipe.algorithm.num_generations,
            samplings=sampling_params(recipe, step),
            seed=recipe.run.seed,
            step=step,
        )
    rounds: list[TrackBatch] = []
    for track, groups in zip(tracks, played, strict=True):
        log = StepLog(step, recipe.run.steps, track.cursor.epoch)
        with watch.phase("rewards"):
            scores = score_groups(groups, track.rewards, log)
        rounds.append(
            TrackBatch(track, groups, scores, log, assign_advantages(groups, scores, track.rewards, recipe.algorithm))
        )
    return rounds


def _metrics(played: TrackBatch) -> dict[str, float]:
    """Rewards and credit of a round, under the track's name where it has one."""
    weights = {reward.name: reward.weight for reward in played.track.rewards}
    logged = {f"rewards/{name}": value for name, value in played.log.metrics.items()}
    numbers = {**reward_metrics(played.scores, weights), **logged, **played.credit.stats}
    prefix = f"{played.track.name}/" if played.track.name else ""
    return {f"{prefix}{key}": value for key, value in numbers.items()}


def _raise_if_all_failed(played: TrackBatch) -> None:
    """A failed trajectory is data; when all of the first step fail, it is a mistake in the scenario or the rewards."""
    failures = [failure for score in played.scores for failure in score.dropped.values()]
    total = sum(len(group.trajectories) for group in played.groups)
    if len(failures) == total:
        raise ConfigError(
            f"All {total} trajectories of the first step failed, the first of them in the {failures[0].where}: "
            f"{failures[0].message}.",
            fix=f"mend the scenario {played.track.scenario.name!r}, the rewards or the data.",
        )
