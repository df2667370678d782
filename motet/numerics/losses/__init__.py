"""The losses of an optimizer step, by the names that TRL gives them.

Actions are packed on one axis `A`; `owner` names each action's act (see `motet.numerics.reductions`). The loss of an
optimizer step is

    loss = sum_a weight_a * (policy_loss_a + beta * kl_a)

where the weights know the counts of the *global* batch. So the sum may be split over micro-batches and processes in
any way, as long as the parts are added, not averaged. Names and formulas are TRL's (`GRPOTrainer._compute_loss`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from motet.numerics.losses.actions import (
    Actions,
    ImportanceSamplingLevel,
    LossSettings,
    PerAction,
    importance_ratios,
    nll,
)
from motet.numerics.losses.cispo import cispo
from motet.numerics.losses.clipped import clipped
from motet.numerics.losses.sapo import sapo
from motet.numerics.losses.vespo import vespo
from motet.numerics.losses.weights import Counts, WeightsOf, by_constant, mean_of_actions, mean_of_acts, mean_of_sums

LossType = Literal["grpo", "bnpo", "dapo", "dr_grpo", "luspo", "cispo", "sapo", "vespo"]


class PolicyLoss(NamedTuple):
    """A loss type: the term of every action, and its weight in the sum."""

    per_action: Callable[[Actions, LossSettings], PerAction]
    weights: WeightsOf


POLICY_LOSSES: Mapping[LossType, PolicyLoss] = {
    "grpo": PolicyLoss(clipped, mean_of_acts),
    "bnpo": PolicyLoss(clipped, mean_of_actions),
    "dapo": PolicyLoss(clipped, mean_of_actions),
    "dr_grpo": PolicyLoss(clipped, by_constant),
    "luspo": PolicyLoss(clipped, mean_of_sums),
    "cispo": PolicyLoss(cispo, mean_of_actions),
    "sapo": PolicyLoss(sapo, mean_of_acts),
    "vespo": PolicyLoss(vespo, mean_of_actions),
}


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
    describe the global batch of the optimizer step. See `motet.numerics.losses.weights`.
    """
    return POLICY_LOSSES[loss_type].weights(owner, lengths, Counts(num_acts, num_actions, max_tokens))


__all__ = [
    "POLICY_LOSSES",
    "Actions",
    "ImportanceSamplingLevel",
    "LossSettings",
    "LossType",
    "PerAction",
    "PolicyLoss",
    "action_weights",
    "importance_ratios",
    "nll",
]
