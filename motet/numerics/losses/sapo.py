"""SAPO: a smooth gate in the place of the clip."""

from __future__ import annotations

import torch

from motet.numerics.losses.actions import Actions, LossSettings, PerAction


def sapo(actions: Actions, settings: LossSettings) -> PerAction:
    """`-sigmoid(tau (r - 1)) (4 / tau) A` per action (Soft Adaptive Policy Optimization, arXiv 2511.20347, eq. 5-6).

    `tau` is `sapo_temperature_pos` where the advantage is positive, else `sapo_temperature_neg`. At ratio 1 the
    gradient is that of `-r A`; away from it the gradient fades, the faster the higher `tau`.
    """
    positive, negative = settings.sapo_temperature_pos, settings.sapo_temperature_neg
    tau = torch.where(actions.advantages > 0, positive, negative).to(actions.ratios)
    return PerAction(-torch.sigmoid(tau * (actions.ratios - 1.0)) * 4.0 / tau * actions.advantages)
