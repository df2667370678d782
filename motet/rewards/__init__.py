"""Rewards: the built-in ones, those of users by path, and the scoring of a step's trajectories.

A reward function is TRL's: `f(prompts, completions, **columns) -> list[float | None]`, sync or async.
"""

from motet.rewards import improvement, random_reward  # these imports register the built-in rewards
from motet.rewards.arguments import StepLog
from motet.rewards.base import BoundReward, ModelReward, bind_policy, built_in_rewards, reward
from motet.rewards.captions import sentences
from motet.rewards.image import clip, edge_density, gen_eval, jpeg, ocr, perceptual_similarity, psnr
from motet.rewards.judge import cycle, image_qa, llm_judge, token_matching
from motet.rewards.remote import remote_reward
from motet.rewards.resolving import resolve, resolve_all
from motet.rewards.reward_models import (
    aesthetic,
    deqa,
    edit_reward,
    hps_v2,
    hps_v3,
    image_reward,
    pick_score,
    unified_reward,
)
from motet.rewards.scoring import score_groups
from motet.rewards.shapes import critique, easy_vqa, listing, scenes, shapes
from motet.rewards.text import exact_match, math_answers, partial_credit, reasoning_gym
from motet.rewards.text.gold_check import check_golds

__all__ = [
    "BoundReward",
    "ModelReward",
    "StepLog",
    "aesthetic",
    "bind_policy",
    "built_in_rewards",
    "check_golds",
    "clip",
    "critique",
    "cycle",
    "deqa",
    "easy_vqa",
    "edge_density",
    "edit_reward",
    "exact_match",
    "gen_eval",
    "hps_v2",
    "hps_v3",
    "image_qa",
    "image_reward",
    "improvement",
    "jpeg",
    "listing",
    "llm_judge",
    "math_answers",
    "ocr",
    "partial_credit",
    "perceptual_similarity",
    "pick_score",
    "psnr",
    "random_reward",
    "reasoning_gym",
    "remote_reward",
    "resolve",
    "resolve_all",
    "reward",
    "scenes",
    "score_groups",
    "sentences",
    "shapes",
    "token_matching",
    "unified_reward",
]
