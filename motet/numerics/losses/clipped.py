"""PPO's clipped loss, which GRPO, DAPO, Dr. GRPO, GSPO and LUSPO share; they differ in ratios and weights."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from motet.numerics.losses.actions import Actions, LossSettings, PerAction


def clipped(actions: Actions, settings: LossSettings) -> PerAction:
    """`policy_loss` and `is_clipped` of the actions, with `epsilon`, `epsilon_high` and `delta`."""
    bounds = (settings.epsilon, settings.epsilon_high, settings.delta)
    loss = policy_loss(actions.ratios, actions.advantages, *bounds)
    return PerAction(loss, is_clipped(actions.ratios.detach(), actions.advantages, *bounds))


def policy_loss(
    ratios: Float[Tensor, "A"],
    advantages: Float[Tensor, "A"],
    epsilon: float | None = None,
    epsilon_high: float | None = None,
    delta: float | None = None,
) -> Float[Tensor, "A"]:
    """`-min(min(r, delta) A, clip(r, 1 - epsilon, 1 + epsilon_high) A)` per action (PPO, arXiv 1707.06347, eq. 7).

    `epsilon` None never clips: `-r A` (CoRL, arXiv 2505.17534). `epsilon_high` None is the same as `epsilon`; DAPO
    (arXiv 2503.14476) raises it to 0.28. `delta` bounds the ratio of actions with a negative advantage too, which
    PPO's minimum leaves unbounded (two-sided clipping, INTELLECT-2, arXiv 2505.07291); None: no such bound.
    """
    low, high = _clip_range(epsilon, epsilon_high, delta)
    if epsilon is None:
        return -ratios * advantages
    bounded = ratios if delta is None else ratios.clamp(max=delta)
    return -torch.minimum(bounded * advantages, ratios.clamp(low, high) * advantages)


def is_clipped(
    ratios: Float[Tensor, "A"],
    advantages: Float[Tensor, "A"],
    epsilon: float | None = None,
    epsilon_high: float | None = None,
    delta: float | None = None,
) -> Bool[Tensor, "A"]:
    """Actions whose gradient the clip removes: ratio too low at a negative advantage, too high at a positive one.

    With `delta` also a ratio above it at a negative advantage. The clip fraction is the mean of this over the actions
    of the whole batch.
    """
    low, high = _clip_range(epsilon, epsilon_high, delta)
    beyond = torch.inf if delta is None else delta
    bad = advantages < 0
    return ((ratios < low) & bad) | ((ratios > high) & (advantages > 0)) | ((ratios > beyond) & bad)


def _clip_range(epsilon: float | None, epsilon_high: float | None, delta: float | None) -> tuple[float, float]:
    """The ratios that are left alone: `[1 - epsilon, 1 + epsilon_high]`."""
    if epsilon is None:
        if epsilon_high is not None or delta is not None:
            given = f"epsilon_high={epsilon_high}" if epsilon_high is not None else f"delta={delta}"
            raise ValueError(f"{given} without epsilon: epsilon None never clips.")
        return -torch.inf, torch.inf
    return 1.0 - epsilon, 1.0 + (epsilon if epsilon_high is None else epsilon_high)
