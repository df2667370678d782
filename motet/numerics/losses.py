"""The policy loss: ratios, clipping, and the weights that make a sum over micro-batches the loss of the whole batch.

Actions are packed on one axis `A`; `owner` names each action's act (see `motet.numerics.reductions`). The loss of an
optimizer step is

    loss = sum_a weight_a * (policy_loss_a + beta * kl_a)

where the weights know the counts of the *global* batch. So the sum may be split over micro-batches and processes in
any way, as long as the parts are added, not averaged. Names and formulas are TRL's (`GRPOTrainer._compute_loss`).
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from motet.numerics.reductions import segment_mean

LossType = Literal["grpo", "bnpo", "dapo", "dr_grpo"]
ImportanceSamplingLevel = Literal["token", "sequence"]


def importance_ratios(
    log_probs: Float[Tensor, "A"],
    old_log_probs: Float[Tensor, "A"],
    owner: Int[Tensor, "A"],
    num_acts: int,
    level: ImportanceSamplingLevel = "token",
) -> Float[Tensor, "A"]:
    """How much likelier each action is now than when it was sampled; no gradient flows into the old log-probs.

    `token`: `r_a = exp(log_prob_a - old_log_prob_a)`.
    `sequence`: the act's length-normalised ratio `s_b = exp(mean_{a in b}(log_prob_a - old_log_prob_a))`, shared by its
    actions, with gradient through every action of the act (GSPO, arXiv 2507.18071, eq. 7). The act must be whole.
    `num_acts`: acts in this micro-batch, the B of `owner`.
    """
    log_ratios = log_probs - old_log_probs.detach()
    if level == "sequence":
        log_ratios = segment_mean(log_ratios, owner, num_acts)[owner]
    return log_ratios.exp()


def policy_loss(
    ratios: Float[Tensor, "A"],
    advantages: Float[Tensor, "A"],
    epsilon: float | None = None,
    epsilon_high: float | None = None,
) -> Float[Tensor, "A"]:
    """`-min(r A, clip(r, 1 - epsilon, 1 + epsilon_high) A)` per action (PPO, arXiv 1707.06347, eq. 7).

    `epsilon` None never clips: `-r A` (CoRL, arXiv 2505.17534). `epsilon_high` None is the same as `epsilon`; DAPO
    (arXiv 2503.14476) raises it to 0.28.
    """
    low, high = _clip_range(epsilon, epsilon_high)
    if epsilon is None:
        return -ratios * advantages
    return -torch.minimum(ratios * advantages, ratios.clamp(low, high) * advantages)


def is_clipped(
    ratios: Float[Tensor, "A"],
    advantages: Float[Tensor, "A"],
    epsilon: float | None = None,
    epsilon_high: float | None = None,
) -> Bool[Tensor, "A"]:
    """Actions whose gradient the clip removes: ratio too low at a negative advantage, too high at a positive one.

    The clip fraction is the mean of this over the actions of the whole batch.
    """
    low, high = _clip_range(epsilon, epsilon_high)
    return ((ratios < low) & (advantages < 0)) | ((ratios > high) & (advantages > 0))


def action_weights(
    owner: Int[Tensor, "A"],
    lengths: Int[Tensor, "B"],
    loss_type: LossType,
    *,
    num_acts: int,
    num_actions: int,
    max_tokens: int | None = None,
) -> Float[Tensor, "A"]:
    """Weight of each action in the loss of the optimizer step; the loss is `sum(weights * per_action_loss)`.

    `owner` and `lengths` describe this micro-batch; `num_acts` (acts without actions count too) and `num_actions`
    describe the global batch of the optimizer step.

    `grpo`: `1 / (N_b num_acts)`: mean over each act's actions, then over acts (DeepSeekMath, arXiv 2402.03300).
    `dapo`, `bnpo`: `1 / num_actions`: mean over all actions (DAPO, arXiv 2503.14476). TRL's bnpo divides by the actions
    of each micro-batch instead and so depends on the split; with one micro-batch on one process they agree.
    `dr_grpo`: `1 / (num_acts max_tokens)`: a constant, no length bias (arXiv 2503.20783).
    """
    if loss_type == "grpo":
        return 1.0 / (lengths.clamp(min=1)[owner].float() * num_acts)
    if loss_type == "dr_grpo":
        if max_tokens is None:
            raise ValueError("loss_type dr_grpo needs max_tokens, the constant it divides by.")
        denominator = num_acts * max_tokens
    else:
        denominator = num_actions
    return torch.full(owner.shape, 1.0 / max(denominator, 1), device=owner.device, dtype=torch.float32)


def nll(log_probs: Float[Tensor, "A"]) -> Float[Tensor, "A"]:
    """Negative log-likelihood `-log_prob` of each action: the supervised loss over a dataset's acts."""
    return -log_probs


def _clip_range(epsilon: float | None, epsilon_high: float | None) -> tuple[float, float]:
    """The ratios that are left alone: `[1 - epsilon, 1 + epsilon_high]`."""
    if epsilon is None:
        if epsilon_high is not None:
            raise ValueError(f"epsilon_high={epsilon_high} without epsilon: epsilon None never clips.")
        return -torch.inf, torch.inf
    return 1.0 - epsilon, 1.0 + (epsilon if epsilon_high is None else epsilon_high)
