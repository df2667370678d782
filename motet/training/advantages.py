"""Advantage assignment: scores -> one advantage per act.

Rewards that name the same acts form a pool; a reward of weight 0 is only logged. Per group of G generations:

- `joint`: all weighted rewards are summed and normalised once; every act gets that advantage (CoRL's unified reward).
- `summed`: each pool is summed and normalised on its own; every act gets the pools' advantages, added with the pools'
  weights (CoRL's unified advantage, A_image + 0.8 A_answer).
- `factorized`: each pool is summed and normalised on its own; an act gets the advantages of the pools that name it.

A pool's weight is the largest of its rewards' absolute weights: so weights 0.8, 0.8 make a pool of weight 0.8, and a
small auxiliary reward does not dilute its pool. `summed` divides it out before it normalises and multiplies it in
after, so without normalisation (`scale_rewards: none`) a pool comes to its plain weighted sum. `factorized` does not.

A reward that does not apply to a group is left out of its sums; a pool (for joint: all) of which nothing applies gives
no advantage, and an act without any advantage is left out of the loss, counted. So are failed generations. Groups
without variance get zeros, and are counted too.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from motet.config.algorithm import AlgorithmConfig
from motet.core.errors import ConfigError
from motet.core.protocols import WeightedReward
from motet.core.trajectory import ActWithAdvantage, Group, Scores
from motet.numerics.advantages import zero_variance
from motet.scenarios import Scenario
from motet.training.advantage_estimators import AdvantageEstimator, resolve_advantage


@dataclass(frozen=True, eq=False)
class AssignedAdvantages:
    """The trained acts of a step with their advantages, and metrics of the assignment.

    `stats`: `groups`; `groups_scored`, to which a reward applies; `groups_zero_variance`, of those the ones in which no
    pool has variance, and their share `frac_reward_zero_std` (TRL's name); `zero_variance/<acts>` of each pool;
    `dropped/<where>` failed generations; `acts` with an advantage; `acts_without_reward`, left out because no pool that
    is assigned to them applies.
    """

    acts: tuple[ActWithAdvantage, ...]
    stats: Mapping[str, float]
    has_variance: tuple[bool, ...] = ()
    """Of each group: whether any pool's rewards differ."""


@dataclass(frozen=True, eq=False)
class _RewardPool:
    """Rewards that share acts, and their sum. NaN: a failed generation, or a group to which none applies."""

    label: str
    acts: frozenset[str] | None  # None: every act
    weight: float
    rewards: Float[Tensor, "P G"]
    advantages: Float[Tensor, "P G"]

    def applies(self, p: int) -> bool:
        return not bool(self.rewards[p].isnan().all())


def check_reward_assignment(scenario: Scenario, rewards: Sequence[WeightedReward]) -> None:
    """Raise ConfigError when a trained act of the scenario is named by no reward: it would get no advantage."""
    named = {act for reward in rewards if reward.weight != 0 for act in reward.acts}
    for act in scenario.acts:
        if act not in named | scenario.untrained_acts:
            there = ", ".join(f"{r.name} (weight {r.weight:g}, acts {', '.join(r.acts)})" for r in rewards) or "none"
            raise ConfigError(
                f"The act {act!r} of scenario {scenario.name!r} trains, but no reward is assigned to it: {there}.",
                fix=f"name {act!r} in rewards.acts of a reward with a weight, or freeze the act in the scenario.",
            )


def assign_advantages(
    groups: Sequence[Group], scores: Sequence[Scores], rewards: Sequence[WeightedReward], algorithm: AlgorithmConfig
) -> AssignedAdvantages:
    """One advantage for every trained act of the valid rollouts, in the order of groups, generations and acts."""
    dropped = [
        set(s.dropped) | (set(range(len(g.trajectories))) - set(g.valid_indices)) for g, s in _pairs(groups, scores)
    ]
    values = _values(groups, scores, rewards, dropped)
    estimator = resolve_advantage(algorithm)
    pools = _pools(values, rewards, algorithm.advantage_assignment, estimator)
    bound = estimator.settings.clip or math.inf
    assigned: list[ActWithAdvantage] = []
    without = 0
    for p, group in enumerate(groups):
        for g, trajectory in enumerate(group.trajectories):
            if g in dropped[p]:
                continue
            for act in trajectory.acts:
                own = [pool for pool in pools if (pool.acts is None or act.name in pool.acts) and pool.applies(p)]
                if act.trained and own:
                    advantage = sum(pool.weight * float(pool.advantages[p, g]) for pool in own)
                    assigned.append(ActWithAdvantage(act, max(-bound, min(bound, advantage))))
                elif act.trained:
                    without += 1
    stats = _stats(groups, scores, pools) | {"acts": float(len(assigned)), "acts_without_reward": float(without)}
    varies = [any(pool.applies(p) and not zero_variance(pool.rewards[p]) for pool in pools) for p in range(len(groups))]
    return AssignedAdvantages(tuple(assigned), stats, tuple(varies))


def _pairs(groups: Sequence[Group], scores: Sequence[Scores]) -> list[tuple[Group, Scores]]:
    return list(zip(groups, scores, strict=True))


def _values(
    groups: Sequence[Group], scores: Sequence[Scores], rewards: Sequence[WeightedReward], dropped: Sequence[set[int]]
) -> Float[Tensor, "R P G"]:
    """Every reward of every generation; NaN where it does not apply, where it failed, and beyond a group's own G."""
    widest = max((len(group.trajectories) for group in groups), default=0)
    values = torch.full((len(rewards), len(groups), widest), torch.nan, dtype=torch.float64)
    for p, (_, score) in enumerate(_pairs(groups, scores)):
        for r, reward in enumerate(rewards):
            for g, value in enumerate(score.values[reward.name]):
                if value is not None and g not in dropped[p]:
                    values[r, p, g] = value
    return values


def _pools(
    values: Float[Tensor, "R P G"],
    rewards: Sequence[WeightedReward],
    mode: str,
    estimator: AdvantageEstimator,
) -> list[_RewardPool]:
    """The pools with their advantages, for the assignment mode: which acts they reach, and with which weight."""
    members: dict[frozenset[str], list[int]] = {}
    for r, reward in enumerate(rewards):
        if reward.weight != 0:
            members.setdefault(frozenset() if mode == "joint" else frozenset(reward.acts), []).append(r)
    pools = []
    for acts, chosen in members.items():
        weights = torch.tensor([rewards[r].weight for r in chosen], dtype=torch.float64)
        weight = float(weights.abs().max()) if mode == "summed" else 1.0
        total = estimator.sum_rewards(values[chosen], weights / weight)
        advantages = estimator(total)
        reached = acts if mode == "factorized" else None
        pools.append(_RewardPool("+".join(sorted(acts)) or "all", reached, weight, total, advantages))
    return pools


def _stats(groups: Sequence[Group], scores: Sequence[Scores], pools: Sequence[_RewardPool]) -> dict[str, float]:
    stats: Counter[str] = Counter({f"dropped/{where}": 0 for where in ("scenario", "policy", "reward")})
    for group, score in _pairs(groups, scores):
        failures = {g: t.failure for g, t in enumerate(group.trajectories) if t.failure is not None}
        stats.update(f"dropped/{failure.where}" for failure in (failures | dict(score.dropped)).values())
    flat, scored = 0, 0
    for p in range(len(groups)):
        applying = [pool for pool in pools if pool.applies(p)]
        without = [pool for pool in applying if zero_variance(pool.rewards[p])]
        stats.update(f"zero_variance/{pool.label}" for pool in without)
        scored += bool(applying)
        flat += bool(applying) and len(without) == len(applying)
    for pool in pools:
        stats.setdefault(f"zero_variance/{pool.label}", 0)
    shares = {"frac_reward_zero_std": flat / scored if scored else 0.0}
    counts = {"groups": len(groups), "groups_scored": scored, "groups_zero_variance": flat, **stats}
    return {name: float(count) for name, count in counts.items()} | shares
