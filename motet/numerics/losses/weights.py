"""The weights that make a sum over micro-batches the loss of the whole optimizer step, `[A]` float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Counts(NamedTuple):
    """Of the whole optimizer step: acts (those without actions too), actions, and the longest act there can be."""

    num_acts: int
    num_actions: int
    max_tokens: int | None


WeightsOf = Callable[[Int[Tensor, "A"], Int[Tensor, "B"], Counts], Float[Tensor, "A"]]
"""From each action's act and the acts' lengths, of a micro-batch, and the counts of the step."""


def mean_of_acts(owner: Int[Tensor, "A"], lengths: Int[Tensor, "B"], counts: Counts) -> Float[Tensor, "A"]:
    """`1 / (N_b num_acts)`: mean over each act's actions, then over acts (DeepSeekMath, arXiv 2402.03300)."""
    return 1.0 / (lengths.clamp(min=1)[owner].float() * counts.num_acts)


def mean_of_actions(owner: Int[Tensor, "A"], lengths: Int[Tensor, "B"], counts: Counts) -> Float[Tensor, "A"]:
    """`1 / num_actions`: mean over all actions (DAPO, arXiv 2503.14476).

    TRL's bnpo divides by the actions of each micro-batch instead and so depends on the split; with one micro-batch on
    one process they agree.
    """
    return _alike(owner, counts.num_actions)


def by_constant(owner: Int[Tensor, "A"], lengths: Int[Tensor, "B"], counts: Counts) -> Float[Tensor, "A"]:
    """`1 / (num_acts max_tokens)`: a constant, no length bias (Dr. GRPO, arXiv 2503.20783)."""
    if counts.max_tokens is None:
        raise ValueError("loss_type dr_grpo needs max_tokens, the constant it divides by.")
    return _alike(owner, counts.num_acts * counts.max_tokens)


def mean_of_sums(owner: Int[Tensor, "A"], lengths: Int[Tensor, "B"], counts: Counts) -> Float[Tensor, "A"]:
    """`1 / num_acts`: sum over each act's actions, then mean over acts (LUSPO, arXiv 2602.05261).

    GSPO's loss with each act's term times its length, so that long acts weigh no less per action than short ones.
    """
    return _alike(owner, counts.num_acts)


def _alike(owner: Int[Tensor, "A"], denominator: int) -> Float[Tensor, "A"]:
    return torch.full(owner.shape, 1.0 / max(denominator, 1), device=owner.device, dtype=torch.float32)
