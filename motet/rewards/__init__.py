"""Rewards: the built-in ones, a user's own by path, and how a step's trajectories are scored.

A reward function is TRL's: `f(prompts, completions, **columns) -> list[float | None]`, sync or async.
"""

from motet.rewards import (  # registers the built-in rewards
    clip,
    critique,
    cycle,
    gen_eval,
    graded,
    improvement,
    jpeg,
    judged,
    matching,
    math_answers,
    picture_qa,
    psnr,
    rules,
    scenes,
    shapes,
)
from motet.rewards.arguments import StepLog
from motet.rewards.base import BoundReward, Judge, bind_policy, built_in_rewards, reward
from motet.rewards.golds import check_golds
from motet.rewards.resolving import resolve, resolve_all
from motet.rewards.scoring import score_groups

__all__ = [
    "BoundReward",
    "Judge",
    "StepLog",
    "bind_policy",
    "built_in_rewards",
    "check_golds",
    "clip",
    "critique",
    "cycle",
    "gen_eval",
    "graded",
    "improvement",
    "jpeg",
    "judged",
    "matching",
    "math_answers",
    "picture_qa",
    "psnr",
    "resolve",
    "resolve_all",
    "reward",
    "rules",
    "scenes",
    "score_groups",
    "shapes",
]
