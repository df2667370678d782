"""Importance ratios: how much likelier an action is now than when it was sampled."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from motet.numerics.reductions import segment_mean

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
