"""SAPO: a smooth gate in the place of the clip."""

from __future__ import annotations

import torch
from pydantic import PositiveFloat

from motet.core.registry import register
from motet.numerics.aggregation import mean_of_acts
from motet.training.losses.policy_gradient import Actions, PerAction, PolicyGradientLoss, PolicyGradientSettings


class SAPOSettings(PolicyGradientSettings):
    """How fast the gradient fades away from ratio 1."""

    temperature_pos: PositiveFloat = 1.0
    """Where the advantage is positive."""
    temperature_neg: PositiveFloat = 1.05
    """Where the advantage is not positive."""


@register("loss", "sapo")
class SAPO(PolicyGradientLoss[SAPOSettings]):
    """`-sigmoid(tau (r - 1)) (4 / tau) A` per action (Soft Adaptive Policy Optimization, arXiv 2511.20347, eq. 5-6).

    `tau` is `temperature_pos` where the advantage is positive, else `temperature_neg`. At ratio 1 the gradient is that
    of `-r A`; away from it the gradient fades, the faster the higher `tau`.
    """

    Settings = SAPOSettings
    aggregation = staticmethod(mean_of_acts)

    def per_action(self, actions: Actions) -> PerAction:
        positive, negative = self.settings.temperature_pos, self.settings.temperature_neg
        tau = torch.where(actions.advantages > 0, positive, negative).to(actions.ratios)
        return PerAction(-torch.sigmoid(tau * (actions.ratios - 1.0)) * 4.0 / tau * actions.advantages)
