"""Importance ratios: how much likelier an action is under one policy than under another."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from motet.numerics.reductions import segment_mean, segment_sum

ImportanceSamplingLevel = Literal["token", "sequence"]


def importance_ratios(
    log_probs: Float[Tensor, "A"],
    old_log_probs: Float[Tensor, "A"],
    owner: Int[Tensor, "A"],
    num_acts: int,
    level: ImportanceSamplingLevel = "token",
) -> Float[Tensor, "A"]:
    """The ratio of each action; no gradient flows into the old log-probs.

    `token`: `r_a = exp(log_prob_a - old_log_prob_a)`.
    `sequence`: the act's length-normalised ratio `s_b = exp(mean_{a in b}(log_prob_a - old_log_prob_a))`, shared by its
    actions, with gradient through every action of the act (GSPO, arXiv 2507.18071, eq. 7). The act must be whole.
    `num_acts`: acts in this micro-batch, the B of `owner`.
    """
    log_ratios = log_probs - old_log_probs.detach()
    if level == "sequence":
        log_ratios = segment_mean(log_ratios, owner, num_acts)[owner]
    return log_ratios.exp()


def rollout_is_weights(
    old_log_probs: Float[Tensor, "A"],
    behaviour_log_probs: Float[Tensor, "A"],
    owner: Int[Tensor, "A"],
    num_acts: int,
    level: ImportanceSamplingLevel = "token",
) -> Float[Tensor, "A"]:
    """`pi_old / pi_behaviour` of each action, not yet truncated, without gradient.

    `behaviour` is what the rollout sampled from: the same weights in another precision or another engine, or older
    weights. `old` are the weights at the start of the update, from which ratios are measured. Truncated at C,
    `w = min(pi_old / pi_behaviour, C)` is the weight of decoupled PPO (Hilton et al., arXiv 2110.00641; AReaL, arXiv
    2505.24298) as Yao et al. 2025 ("Your efficient RL framework secretly brings you off-policy RL training")
    cap it.
    `token`: `exp(old_a - behaviour_a)`, low variance; the states that the actions were taken in keep their bias.
    `sequence`: `exp(sum_{a in b}(old_a - behaviour_a))`, that of the whole act, shared by its actions; unbiased.
    `num_acts`: acts in this micro-batch, the B of `owner`.
    """
    log_ratios = old_log_probs.detach() - behaviour_log_probs.detach()
    if level == "sequence":
        log_ratios = segment_sum(log_ratios, owner, num_acts)[owner]
    return log_ratios.exp()
