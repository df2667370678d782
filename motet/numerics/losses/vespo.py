"""VESPO: a smooth weight of the whole act's ratio on every action's log-prob."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from motet.numerics.losses.actions import Actions, LossSettings, PerAction
from motet.numerics.reductions import segment_sum

_LOWEST, _HIGHEST = math.log(1e-8), 20.0
"""Bounds of an act's log-ratio; those of an action's are -20 and 20. TRL's and the authors' values."""


def vespo(actions: Actions, settings: LossSettings) -> PerAction:
    """`-sg(phi(w)) A log_prob` per action, with `phi(w) = w^k exp(lambda (1 - w))` (VESPO, arXiv 2602.10693).

    `w = prod_{a in b} r_a` is the ratio of the whole act, without length normalisation, and `sg` stops the gradient.
    `k` and `lambda` are those of `_pos` where the advantage is not negative, else those of `_neg`. `phi(1) = 1`.
    """
    with torch.no_grad():
        phi = _phi(actions, settings)
    return PerAction(-phi * actions.advantages * actions.log_probs)


def _phi(actions: Actions, settings: LossSettings) -> Float[Tensor, "A"]:
    """The weight of each action's act, in log space up to the last step."""
    log_ratios = (actions.log_probs - actions.old_log_probs).clamp(-20.0, 20.0)
    log_w = segment_sum(log_ratios, actions.owner, actions.num_acts).clamp(_LOWEST, _HIGHEST)[actions.owner]
    good = actions.advantages >= 0
    k = torch.where(good, settings.vespo_k_pos, settings.vespo_k_neg)
    rate = torch.where(good, settings.vespo_lambda_pos, settings.vespo_lambda_neg)
    return (rate + k * log_w - rate * log_w.exp()).exp().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
