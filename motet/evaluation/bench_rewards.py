"""What a recipe's rewards are worth before a step is trained: how each agrees with the one that is trusted.

The recipe's first rollouts are played and scored, and nothing is learned. GRPO compares siblings, so what matters is
the agreement *within* groups; across prompts a reward can look good by knowing which prompts are easy.
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
    """How one reward agrees with the trusted one. Each number with its 95 % interval (bootstrap over groups)."""

    track: str
    reward: str
    against: str
    siblings: int
    mean: float
    std: float
    overall: tuple[float, float, float]
    within: tuple[float, float, float]
    pairwise_accuracy: tuple[float, float, float]


def audit_rewards(
    recipe: Recipe,
    rollouts: int,
    against: str | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Agreement]:
    """Play `rollouts` rollouts of every track, score them, and compare every other reward with `against`.

    `against` is the name of the trusted reward; None: each track's first. Raises ConfigError when a track lacks it or
    has nothing to compare with it.
    """
    for name, track in recipe.resolved_tracks().items():
        if len(track.rewards) < 2:
            where = f"tracks.{name}.rewards" if name else "rewards"
            raise ConfigError(
                f"{where} has {len(track.rewards)} of the two or more rewards to compare.",
                fix="add the one that you trust, or the one that you doubt.",
            )
    session = setup_rl(recipe)
    for track in session.tracks:
        names = [reward.name for reward in track.rewards]
        if against is not None and against not in names:
            where = f"The track {track.name!r}" if track.name else "The recipe"
            raise ConfigError(
                f"{where} has no reward {against!r}; it has: {', '.join(names)}.{did_you_mean(against, names)}",
                fix="name one of them, or add it.",
            )
    found: list[Agreement] = []
    for number, track in enumerate(session.tracks):
        scores: list[Scores] = []
        for step in range(rollouts):
            scores += _scores(session, track, step)
            progress(number * rollouts + step + 1, len(session.tracks) * rollouts)
        trusted = against or track.rewards[0].name
        found += [_agreement(track.name, r.name, trusted, scores) for r in track.rewards if r.name != trusted]
    return found


def _scores(session: TrainingSetup, track: Track, step: int) -> list[Scores]:
    """Without the track's number in its noise: tracks on the same rows are judged by the same samples."""
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


def _agreement(track: str, reward: str, against: str, scores: Sequence[Scores]) -> Agreement:
    groups = [_pairs(score, against, reward) for score in scores]
    values = [score for group in groups for _, score in group]

    def with_interval(statistic: Callable[[Sequence[ScorePairs]], float]) -> tuple[float, float, float]:
        return statistic(groups), *bootstrap_interval(groups, statistic)

    return Agreement(
        track=track,
        reward=reward,
        against=against,
        siblings=len(values),
        mean=statistics.fmean(values) if values else math.nan,
        std=statistics.pstdev(values) if values else math.nan,
        overall=with_interval(pooled_correlation),
        within=with_interval(within_group_correlation),
        pairwise_accuracy=with_interval(pairwise_accuracy),
    )


def _pairs(score: Scores, trusted: str, reward: str) -> list[tuple[float, float]]:
    both = zip(score.values[trusted], score.values[reward], strict=True)
    return [
        (one, other)
        for generation_index, (one, other) in enumerate(both)
        if one is not None and other is not None and generation_index not in score.dropped
    ]
