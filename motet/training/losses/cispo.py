"""CISPO: a capped ratio as the weight of every action's log-prob, so that no action loses its gradient."""

from __future__ import annotations

from pydantic import Field

from motet.core.registry import register
from motet.numerics.aggregation import mean_of_actions
from motet.training.losses.policy_gradient import Actions, PerAction, PolicyGradientLoss, PolicyGradientSettings


class CISPOSettings(PolicyGradientSettings):
    """The cap of the ratio is required."""

    epsilon_high: float = Field(ge=1.0, allow_inf_nan=False)
    """The cap of the ratio itself, not its distance from 1, as in TRL; 5 is ScaleRL's (arXiv 2510.13786)."""


@register("loss", "cispo")
class CISPO(PolicyGradientLoss[CISPOSettings]):
    """`-sg(min(r, epsilon_high)) A log_prob` per action; `sg` stops the gradient (MiniMax-M1, arXiv 2506.13585, eq. 4).

    There is no lower bound. Clipped are the actions whose ratio is capped, whatever their advantage; they keep their
    gradient.
    """

    Settings = CISPOSettings
    aggregation = staticmethod(mean_of_actions)

    def per_action(self, actions: Actions) -> PerAction:
        ratios, cap = actions.ratios.detach(), self.settings.epsilon_high
        return PerAction(-ratios.clamp(max=cap) * actions.advantages * actions.log_probs, ratios > cap)
