"""VESPO: a smooth weight of the whole act's ratio on every action's log-prob."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from motet.core.registry import register
from motet.numerics.aggregation import mean_of_actions
from motet.numerics.reductions import segment_sum
from motet.training.losses.policy_gradient import Actions, PerAction, PolicyGradientLoss, PolicyGradientSettings

_LOWEST, _HIGHEST = math.log(1e-8), 20.0
"""Bounds of an act's log-ratio; those of an action's are -20 and 20. TRL's and the authors' values."""


class VESPOSettings(PolicyGradientSettings):
    """Power and decay of the weight, by the sign of the advantage."""

    importance_sampling_level: Literal["token"] = "token"  # pyright: ignore[reportIncompatibleVariableOverride]
    """The ratio of the sequence is made by the loss itself."""
    rollout_is: Literal["token"] | None = None  # pyright: ignore[reportIncompatibleVariableOverride]
    """The weights of the tokens are part of the act's ratio `w`, as in TRL."""
    k_pos: NonNegativeFloat = 2.0
    """Power of the act's ratio where the advantage is not negative; lowers the weight of ratios below 1."""
    lambda_pos: PositiveFloat = 3.0
    """Decay in the act's ratio where the advantage is not negative; lowers the weight of ratios above 1."""
    k_neg: NonNegativeFloat = 3.0
    """The power where the advantage is negative."""
    lambda_neg: PositiveFloat = 2.0
    """The decay where the advantage is negative."""


@register("loss", "vespo")
class VESPO(PolicyGradientLoss[VESPOSettings]):
    """`-sg(phi(w)) A log_prob` per action, with `phi(w) = w^k exp(lambda (1 - w))` (VESPO, arXiv 2602.10693).

    `w = prod_{a in b} r_a` is the ratio of the whole act, without length normalisation, and `sg` stops the gradient.
    With `rollout_is` the truncated weight of every action is a factor of `w` too.
    `k` and `lambda` are those of `_pos` where the advantage is not negative, else those of `_neg`. `phi(1) = 1`.
    """

    Settings = VESPOSettings
    aggregation = staticmethod(mean_of_actions)
    weighs_own_rollouts = True

    def per_action(self, actions: Actions) -> PerAction:
        with torch.no_grad():
            phi = self._phi(actions)
        return PerAction(-phi * actions.advantages * actions.log_probs)

    def _phi(self, actions: Actions) -> Float[Tensor, "A"]:
        """The weight of each action's act, in log space up to the last step."""
        own = self.settings
        log_ratios = (actions.log_probs - actions.old_log_probs).clamp(-20.0, 20.0)
        if actions.rollout_weights is not None:
            log_ratios = log_ratios + actions.rollout_weights.log().clamp(_LOWEST, _HIGHEST)
        log_w = segment_sum(log_ratios, actions.owner, actions.num_acts).clamp(_LOWEST, _HIGHEST)[actions.owner]
        good = actions.advantages >= 0
        k = torch.where(good, own.k_pos, own.k_neg)
        rate = torch.where(good, own.lambda_pos, own.lambda_neg)
        return (rate + k * log_w - rate * log_w.exp()).exp().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
