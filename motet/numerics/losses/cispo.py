"""CISPO: a capped ratio as the weight of every action's log-prob, so that no action loses its gradient."""

from __future__ import annotations

from motet.numerics.losses.actions import Actions, LossSettings, PerAction


def cispo(actions: Actions, settings: LossSettings) -> PerAction:
    """`-sg(min(r, epsilon_high)) A log_prob` per action; `sg` stops the gradient (MiniMax-M1, arXiv 2506.13585, eq. 4).

    `epsilon_high` is the cap itself, not its distance from 1, as in TRL (ScaleRL, arXiv 2510.13786: 5). There is no
    lower bound. Clipped are the actions whose ratio is capped, whatever their advantage; they keep their gradient.
    """
    if settings.epsilon_high is None:
        raise ValueError("loss_type cispo needs epsilon_high, the cap of the ratio.")
    ratios = actions.ratios.detach()
    weights = ratios.clamp(max=settings.epsilon_high)
    return PerAction(-weights * actions.advantages * actions.log_probs, ratios > settings.epsilon_high)
