"""Audit a recipe's rewards before training: the correlation of each with a trusted one.

The recipe's first rollouts are generated and scored without training. GRPO compares the generations of a group, so the
agreement *within* groups matters; across prompts a reward can correlate just because some prompts are easier.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from motet.config import Recipe
from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean
from motet.core.trajectory import Scores
from motet.numerics.statistics import (
    ScorePairs,
    bootstrap_interval,
    pairwise_accuracy,
    pooled_correlation,
    within_group_correlation,
)
from motet.rewards import StepLog, score_groups
from motet.training.rollout import rollout
from motet.training.setup import Track, TrainingSetup, sampling_params, setup_rl


@dataclass(frozen=True)
class Agreement:
    """The agreement of one reward with the trusted one; values with 95 % intervals (bootstrap over groups)."""

    track: str
    reward: str
    trusted: str
    num_rollouts: int
    mean: float
    std: float
    pooled_correlation: tuple[float, float, float]
    within_group_correlation: tuple[float, float, float]
    pairwise_accuracy: tuple[float, float, float]


def audit_rewards(
    recipe: Recipe,
    rollouts: int,
    trusted: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Agreement]:
    """Run and score `rollouts` rollout batches of every track, and compare every other reward with the trusted one.

    `trusted` is the name of the trusted reward; None: the first of each track. Raises ConfigError if a track lacks it
    or has no other reward.
    """
    for name, track in recipe.resolved_tracks().items():
        if len(track.rewards) < 2:
            where = f"tracks.{name}.rewards" if name else "rewards"
            raise ConfigError(
                f"{where} has {len(track.rewards)} reward(s), but a comparison needs at least two.",
                fix="list at least two rewards, one of them trusted.",
            )
    session = setup_rl(recipe)
    for track in session.tracks:
        names = [reward.name for reward in track.rewards]
        if trusted is not None and trusted not in names:
            where = f"The track {track.name!r}" if track.name else "The recipe"
            raise ConfigError(
                f"{where} has no reward {trusted!r}; it has: {', '.join(names)}.{did_you_mean(trusted, names)}",
                fix="name one of them, or add it.",
            )
    agreements: list[Agreement] = []
    for number, track in enumerate(session.tracks):
        scores: list[Scores] = []
        for step in range(rollouts):
            scores += _scores(session, track, step)
            progress(number * rollouts + step + 1, len(session.tracks) * rollouts)
        reference = trusted or track.rewards[0].name
        names = [reward.name for reward in track.rewards if reward.name != reference]
        agreements += [_agreement(track.name, name, reference, scores) for name in names]
    return agreements


def _scores(session: TrainingSetup, track: Track, step: int) -> list[Scores]:
    """The scores of one rollout. The noise does not depend on the track, so tracks on the same rows share samples."""
    recipe = session.recipe
    groups = rollout(
        session.policy,
        track.scenario,
        track.cursor.next(track.prompts),
        recipe.algorithm.num_generations,
        samplings=sampling_params(recipe),
        seed=recipe.run.seed,
        step=step,
    )
    return score_groups(groups, track.rewards, StepLog(step, recipe.run.steps))


def _agreement(track: str, reward: str, trusted: str, scores: Sequence[Scores]) -> Agreement:
    groups = [_pairs(score, trusted, reward) for score in scores]
    values = [score for group in groups for _, score in group]

    def with_interval(statistic: Callable[[Sequence[ScorePairs]], float]) -> tuple[float, float, float]:
        return statistic(groups), *bootstrap_interval(groups, statistic)

    return Agreement(
        track=track,
        reward=reward,
        trusted=trusted,
        num_rollouts=len(values),
        mean=statistics.fmean(values) if values else math.nan,
        std=statistics.pstdev(values) if values else math.nan,
        pooled_correlation=with_interval(pooled_correlation),
        within_group_correlation=with_interval(within_group_correlation),
        pairwise_accuracy=with_interval(pairwise_accuracy),
    )


def _pairs(score: Scores, trusted: str, reward: str) -> list[tuple[float, float]]:
    both = zip(score.values[trusted], score.values[reward], strict=True)
    return [
        (first, second)
        for generation_index, (first, second) in enumerate(both)
        if first is not None and second is not None and generation_index not in score.dropped
    ]
