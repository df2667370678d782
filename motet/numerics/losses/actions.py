"""What a policy loss sees of the actions of a micro-batch, and the ratios that it weighs them by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from jaxtyping import Bool, Float, Int
from torch import Tensor

from motet.numerics.reductions import segment_mean

ImportanceSamplingLevel = Literal["token", "sequence"]


@dataclass(frozen=True)
class LossSettings:
    """Settings of the policy losses under TRL's names, with TRL's defaults; every loss reads its own."""

    epsilon: float | None = 0.2
    epsilon_high: float | None = None
    delta: float | None = None
    sapo_temperature_pos: float = 1.0
    sapo_temperature_neg: float = 1.05
    vespo_k_pos: float = 2.0
    vespo_lambda_pos: float = 3.0
    vespo_k_neg: float = 3.0
    vespo_lambda_neg: float = 2.0


@dataclass(frozen=True, eq=False)
class Actions:
    """The actions of some whole acts: log-probs now and when they were sampled, ratios, and advantages.

    `ratios` are at the level that the recipe asks for, with gradient; the old log-probs have none. `num_acts`: acts in
    this micro-batch, the B of `owner`.
    """

    log_probs: Float[Tensor, "A"]
    old_log_probs: Float[Tensor, "A"]
    ratios: Float[Tensor, "A"]
    advantages: Float[Tensor, "A"]
    owner: Int[Tensor, "A"]
    num_acts: int


class PerAction(NamedTuple):
    """The loss of each action, and which actions the clip cut off; None for a loss that does not clip."""

    loss: Float[Tensor, "A"]
    clipped: Bool[Tensor, "A"] | None = None


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


def nll(log_probs: Float[Tensor, "A"]) -> Float[Tensor, "A"]:
    """Negative log-likelihood `-log_prob` of each action: the supervised loss over a dataset's acts."""
    return -log_probs
