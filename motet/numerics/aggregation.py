"""The weights that make a sum over micro-batches the loss of the whole optimizer step, `[A]` float32.

The loss of an optimizer step is `sum_a weight_a loss_a`, where the weights know the counts of the whole step. So the
sum may be split over micro-batches in any way, as long as the parts are added, not averaged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class StepCounts(NamedTuple):
    """Of the whole optimizer step: acts (those without actions too), actions, and the longest act there can be."""

    num_acts: int
    num_actions: int
    max_actions: int | None = None


Aggregation = Callable[[Int[Tensor, "A"], Int[Tensor, "B"], StepCounts], Float[Tensor, "A"]]
"""The weight of each action, from each action's act and the acts' lengths in a micro-batch, and the step's counts."""


def mean_of_acts(owner: Int[Tensor, "A"], lengths: Int[Tensor, "B"], counts: StepCounts) -> Float[Tensor, "A"]:
    """`1 / (N_b num_acts)`: mean over each act's actions, then over acts (DeepSeekMath, arXiv 2402.03300)."""
    return 1.0 / (lengths.clamp(min=1)[owner].float() * counts.num_acts)


def mean_of_actions(owner: Int[Tensor, "A"], lengths: Int[Tensor, "B"], counts: StepCounts) -> Float[Tensor, "A"]:
    """`1 / num_actions`: mean over all actions (DAPO, arXiv 2503.14476).

    TRL's bnpo divides by the actions of each micro-batch instead and so depends on the split; with one micro-batch on
    one process they agree.
    """
    return _constant(owner, counts.num_actions)


def by_max_actions(owner: Int[Tensor, "A"], lengths: Int[Tensor, "B"], counts: StepCounts) -> Float[Tensor, "A"]:
    """`1 / (num_acts max_actions)`: a constant, no length bias (Dr. GRPO, arXiv 2503.20783)."""
    if counts.max_actions is None:
        raise ValueError("the weights of dr_grpo need max_actions, the constant to divide by.")
    return _constant(owner, counts.num_acts * counts.max_actions)


def mean_of_sums(owner: Int[Tensor, "A"], lengths: Int[Tensor, "B"], counts: StepCounts) -> Float[Tensor, "A"]:
    """`1 / num_acts`: sum over each act's actions, then mean over acts (LUSPO, arXiv 2602.05261).

    GSPO's loss with each act's term times its length, so that long acts weigh no less per action than short ones.
    """
    return _constant(owner, counts.num_acts)


def _constant(owner: Int[Tensor, "A"], denominator: int) -> Float[Tensor, "A"]:
    return torch.full(owner.shape, 1.0 / max(denominator, 1), device=owner.device, dtype=torch.float32)
