"""Group-relative advantages: how much better a generation is than its group.

Rewards are float tensors over the G generations of a prompt. NaN marks a failed generation: its advantage is 0, and it
is left out of every mean and standard deviation. An infinite reward gives NaN or infinite advantages.

    advantage = (reward - baseline) / (std + 1e-4)

`baseline`: "grpo", the group's mean (DeepSeekMath, arXiv 2402.03300); "rloo", the mean of the other generations
(arXiv 2402.14740), which is the former times n / (n - 1) for n valid generations.
`scale`: "group" divides by the group's standard deviation (GRPO; also TRL and CoRL); "batch" by that of all rewards of
the batch (Lite PPO, arXiv 2508.08221); "none" does not divide (Dr. GRPO, arXiv 2503.20783).
The standard deviation is the unbiased one (n - 1), as in TRL and CoRL; `population` divides by n, as Flow-GRPO's code
does. A group without variance (one valid generation, or equal rewards) gets zeros: count such groups with
`zero_variance`.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Baseline = Literal["grpo", "rloo"]
Scale = Literal["group", "batch", "none"]

STD_EPSILON = 1e-4
"""Added to the standard deviation; TRL's and CoRL's value."""


def batch_advantages(
    rewards: Float[Tensor, "P G"],
    *,
    baseline: Baseline = "grpo",
    scale: Scale = "group",
    population: bool = False,
    epsilon: float = STD_EPSILON,
) -> Float[Tensor, "P G"]:
    """Advantages of P groups of G generations; only under `scale="batch"` do they depend on other groups."""
    valid = ~rewards.isnan()
    advantages = rewards - rewards.nanmean(dim=1, keepdim=True)
    if baseline == "rloo":
        num_valid = valid.sum(dim=1, keepdim=True)
        advantages = advantages * num_valid / (num_valid - 1).clamp(min=1)
    if scale == "group":
        advantages = advantages / (_nan_std(rewards, population) + epsilon)
    elif scale == "batch":
        advantages = advantages / (_nan_std(rewards.reshape(1, -1), population) + epsilon)
    return torch.where(valid & ~_without_variance(rewards).unsqueeze(1), advantages, 0.0)


def group_advantages(
    rewards: Float[Tensor, "G"],
    *,
    baseline: Baseline = "grpo",
    scale: Literal["group", "none"] = "group",
    epsilon: float = STD_EPSILON,
) -> Float[Tensor, "G"]:
    """Advantages of one group; see the module."""
    return batch_advantages(rewards.unsqueeze(0), baseline=baseline, scale=scale, epsilon=epsilon).squeeze(0)


def zero_variance(rewards: Float[Tensor, "G"]) -> bool:
    """Whether a group has fewer than two valid generations, or rewards that are equal up to float32 rounding."""
    return bool(_without_variance(rewards.unsqueeze(0)))


def normalize_separately(
    values: Float[Tensor, "R G"],
    weights: Float[Tensor, "R"],
    *,
    population: bool = False,
    epsilon: float = STD_EPSILON,
) -> Float[Tensor, "G"]:
    """GDPO (arXiv 2601.05242): normalise every reward over the group, then take the weighted sum.

    A reward that is NaN for the whole group does not apply and is left out. NaN for part of the group drops those
    generations from every reward, and they stay NaN in the result, which is a reward for `batch_advantages`: with
    `scale="batch"` that gives GDPO's last step and TRL's `normalize_then_sum`.
    """
    applies = ~values.isnan().all(dim=1)
    dropped = values[applies].isnan().any(dim=0) | ~applies.any()
    normalized = batch_advantages(values.masked_fill(dropped, torch.nan), population=population, epsilon=epsilon)
    return (weights.unsqueeze(1) * normalized).sum(dim=0).masked_fill(dropped, torch.nan)


def _nan_std(rewards: Float[Tensor, "P G"], population: bool) -> Float[Tensor, "P 1"]:
    """Standard deviation of each row's valid entries, the population's or the unbiased; 0 where fewer than two are."""
    deviations = rewards - rewards.nanmean(dim=1, keepdim=True)
    num_valid = (~rewards.isnan()).sum(dim=1, keepdim=True)
    degrees = num_valid if population else num_valid - 1
    return (deviations.square().nansum(dim=1, keepdim=True) / degrees.clamp(min=1)).sqrt()


def _without_variance(rewards: Float[Tensor, "P G"]) -> Bool[Tensor, "P"]:
    """Rows with fewer than two valid entries, or whose valid entries differ by rounding only."""
    dropped = rewards.isnan()
    difference = rewards.masked_fill(dropped, -torch.inf).amax(dim=1) - rewards.masked_fill(dropped, torch.inf).amin(
        dim=1
    )
    rounding = 8 * torch.finfo(torch.float32).eps * rewards.abs().nan_to_num(nan=0.0, posinf=torch.inf).amax(dim=1)
    return ((~dropped).sum(dim=1) < 2) | (difference == 0) | (difference < rounding)
