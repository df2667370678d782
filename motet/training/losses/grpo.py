"""PPO's clipped loss, which GRPO, DAPO, Dr. GRPO, GSPO and LUSPO share; they differ in ratios and weights."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import NonNegativeFloat, PositiveFloat
from torch import Tensor

from motet.config.problem import Problem
from motet.config.schema import Recipe
from motet.core.registry import register
from motet.numerics.aggregation import by_max_actions, mean_of_actions, mean_of_acts, mean_of_sums
from motet.training.losses.policy_gradient import Actions, PerAction, PolicyGradientLoss, PolicyGradientSettings


class ClippedSettings(PolicyGradientSettings):
    """Options of the losses that clip ratios."""

    epsilon: NonNegativeFloat | None = 0.2
    """Clip range below 1; null never clips (CoRL)."""
    epsilon_high: NonNegativeFloat | None = None
    """Clip range above 1; None: the same as epsilon (DAPO: 0.28)."""
    delta: PositiveFloat | None = None
    """Upper bound of the ratio where the advantage is negative (two-sided clipping, INTELLECT-2); None: no bound."""

    def problems(self, key: str) -> Iterator[Problem]:
        yield from super().problems(key)
        low, high, delta = self.epsilon, self.epsilon_high, self.delta
        if low is None:
            for name, value in (("epsilon_high", high), ("delta", delta)):
                if value is not None:
                    text = f"is {value:g}, but {key}.epsilon null means never to clip."
                    yield Problem(f"{key}.{name}", text, f"set {key}.epsilon too, or remove {name}.")
            return
        if low == 0:
            yield Problem(
                f"{key}.epsilon", "0 clips every change away.", "set it to null to never clip, or to a value > 0."
            )
        elif low > 1:
            yield Problem(
                f"{key}.epsilon", f"{low:g} is a ratio below 0; expected at most 1.", "0.2 is usual for tokens."
            )
        if high is not None and high < low:
            text = f"{high:g} is below epsilon {low:g}; clip-higher wants it above (DAPO: 0.2 and 0.28)."
            yield Problem(f"{key}.epsilon_high", text, "raise it, or remove it: then both ranges are epsilon.")
        upper = 1 + (low if high is None else high)
        if delta is not None and delta <= upper:
            text = f"{delta:g} lies inside the clip range, which ends at {upper:g}."
            yield Problem(f"{key}.delta", text, "raise it, or remove it: INTELLECT-2 has 4 at epsilon 0.2.")


class Clipped(PolicyGradientLoss[ClippedSettings]):
    """PPO's clipped loss; subclasses say how actions are weighted."""

    Settings = ClippedSettings

    def per_action(self, actions: Actions) -> PerAction:
        bounds = (self.settings.epsilon, self.settings.epsilon_high, self.settings.delta)
        loss = policy_loss(actions.ratios, actions.advantages, *bounds)
        return PerAction(loss, is_clipped(actions.ratios.detach(), actions.advantages, *bounds))


@register("loss", "grpo")
class GRPO(Clipped):
    """A mean over each act's actions, then over acts (DeepSeekMath, arXiv 2402.03300). GSPO is this of sequences."""

    aggregation = staticmethod(mean_of_acts)


@register("loss", "dapo")
class DAPO(Clipped):
    """A mean over all actions (arXiv 2503.14476)."""

    aggregation = staticmethod(mean_of_actions)


@register("loss", "bnpo")
class BNPO(DAPO):
    """TRL's name; equal to dapo, whose mean is over the whole optimizer step."""


@register("loss", "dr_grpo")
class DrGRPO(Clipped):
    """A sum over actions divided by a constant (arXiv 2503.20783)."""

    aggregation = staticmethod(by_max_actions)

    def check(self, recipe: Recipe, key: str) -> Iterator[Problem]:
        yield from super().check(recipe, key)
        if recipe.algorithm.scale_rewards == "group":
            text = f"is group, but {key} dr_grpo means not to divide by the group's deviation (arXiv 2503.20783)."
            yield Problem("algorithm.scale_rewards", text, "set algorithm.scale_rewards to none.")


class LUSPOSettings(ClippedSettings):
    """Ratios are those of sequences."""

    importance_sampling_level: Literal["sequence"] = "sequence"  # pyright: ignore[reportIncompatibleVariableOverride]
    """The ratio is the length-normalised one of the sequence."""


@register("loss", "luspo")
class LUSPO(Clipped):
    """A sum over each act's actions, then a mean over acts (arXiv 2602.05261)."""

    Settings = LUSPOSettings
    aggregation = staticmethod(mean_of_sums)


def policy_loss(
    ratios: Float[Tensor, "A"],
    advantages: Float[Tensor, "A"],
    epsilon: float | None = None,
    epsilon_high: float | None = None,
    delta: float | None = None,
) -> Float[Tensor, "A"]:
    """`-min(min(r, delta) A, clip(r, 1 - epsilon, 1 + epsilon_high) A)` per action (PPO, arXiv 1707.06347, eq. 7).

    `epsilon` None never clips: `-r A` (CoRL, arXiv 2505.17534). `epsilon_high` None is the same as `epsilon`; DAPO
    (arXiv 2503.14476) raises it to 0.28. `delta` bounds the ratio of actions with a negative advantage too, which
    PPO's minimum leaves unbounded (two-sided clipping, INTELLECT-2, arXiv 2505.07291); None: no such bound.
    """
    low, high = _clip_range(epsilon, epsilon_high, delta)
    if epsilon is None:
        return -ratios * advantages
    bounded = ratios if delta is None else ratios.clamp(max=delta)
    return -torch.minimum(bounded * advantages, ratios.clamp(low, high) * advantages)


def is_clipped(
    ratios: Float[Tensor, "A"],
    advantages: Float[Tensor, "A"],
    epsilon: float | None = None,
    epsilon_high: float | None = None,
    delta: float | None = None,
) -> Bool[Tensor, "A"]:
    """Actions whose gradient the clip removes: ratio too low at a negative advantage, too high at a positive one.

    With `delta` also a ratio above it at a negative advantage. The clip fraction is the mean of this over the actions
    of the whole batch.
    """
    low, high = _clip_range(epsilon, epsilon_high, delta)
    beyond = torch.inf if delta is None else delta
    bad = advantages < 0
    return ((ratios < low) & bad) | ((ratios > high) & (advantages > 0)) | ((ratios > beyond) & bad)


def _clip_range(epsilon: float | None, epsilon_high: float | None, delta: float | None) -> tuple[float, float]:
    """The ratios that are left alone: `[1 - epsilon, 1 + epsilon_high]`."""
    if epsilon is None:
        if epsilon_high is not None or delta is not None:
            given = f"epsilon_high={epsilon_high}" if epsilon_high is not None else f"delta={delta}"
            raise ValueError(f"{given} without epsilon: epsilon None never clips.")
        return -torch.inf, torch.inf
    return 1.0 - epsilon, 1.0 + (epsilon if epsilon_high is None else epsilon_high)
