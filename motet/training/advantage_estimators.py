"""Advantage estimators by name: rewards of P groups -> one advantage per generation.

Adding one is a class here or in a package of your own:

    @register("advantage", "max")
    class BestOfGroup(AdvantageEstimator):
        def __call__(self, rewards):
            return rewards - rewards.nan_to_num(-torch.inf).amax(dim=1, keepdim=True)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import PositiveFloat
from torch import Tensor

from motet.config.algorithm import AlgorithmConfig
from motet.config.error_messages import to_error
from motet.config.options import read_options
from motet.config.problem import Problem
from motet.config.section import Section
from motet.core.registry import Registry, register, registry
from motet.numerics.advantages import Baseline, Scale, batch_advantages, normalize_separately

KEY = "algorithm.advantage"


class AdvantageSettings(Section):
    """Options of every advantage estimator."""

    population_std: bool = False
    """Divide by the standard deviation of the population (n), as Flow-GRPO's code does, not by the unbiased (n - 1)."""
    clip: PositiveFloat | None = None
    """Bound of an act's advantage, to both sides (Flow-GRPO's code: 5); None: no bound."""
    normalize_separately: bool = False
    """Normalise every single reward over its group before the weighted sum (GDPO)."""


class AdvantageEstimator(ABC):
    """Advantages of the groups of a step; `scale` is algorithm.scale_rewards."""

    Settings: ClassVar[type[Any]] = AdvantageSettings

    def __init__(self, settings: Any, scale: Scale) -> None:
        self.settings = settings
        self.scale: Scale = scale

    @abstractmethod
    def __call__(self, rewards: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
        """Rewards to advantages. NaN marks a failed generation or a group without reward: its advantage is 0."""

    def sum_rewards(self, values: Float[Tensor, "R P G"], weights: Float[Tensor, "R"]) -> Float[Tensor, "P G"]:
        """The weighted sum of the rewards that apply to a group; NaN for failed generations and where none applies."""
        if self.settings.normalize_separately:
            population = self.settings.population_std
            return torch.stack(
                [normalize_separately(values[:, p], weights, population=population) for p in range(values.shape[1])]
            )
        applies = ~values.isnan().all(dim=2, keepdim=True)  # [R, P, 1]
        missing = (values.isnan() & applies).any(dim=0) | ~applies.any(dim=0)
        total = (weights[:, None, None] * values.nan_to_num(nan=0.0)).sum(dim=0)
        return total.masked_fill(missing, torch.nan)

    def problems(self) -> Iterator[Problem]:
        """Options that do not go together."""
        if self.scale != "none":
            return
        if self.settings.normalize_separately:
            text = "divides every reward by its deviation, which algorithm.scale_rewards none excludes."
            fix = "set scale_rewards to group or batch, or normalize_separately to false."
            yield Problem(f"{KEY}.normalize_separately", text, fix)
        if self.settings.population_std:
            text = "has no effect while algorithm.scale_rewards is none."
            yield Problem(f"{KEY}.population_std", text, "remove it, or set algorithm.scale_rewards to batch.")


ADVANTAGES: Registry[type[AdvantageEstimator]] = registry("advantage")


class _GroupRelative(AdvantageEstimator):
    """`(reward - baseline) / (std + 1e-4)`; see `motet.numerics.advantages`."""

    baseline: ClassVar[Baseline]

    def __call__(self, rewards: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
        population = self.settings.population_std
        return batch_advantages(rewards, baseline=self.baseline, scale=self.scale, population=population)


@register("advantage", "grpo")
class GroupMean(_GroupRelative):
    """The baseline is the group's mean (DeepSeekMath, arXiv 2402.03300)."""

    baseline = "grpo"


@register("advantage", "rloo")
class LeaveOneOut(_GroupRelative):
    """The baseline is the mean of the other generations (RLOO, arXiv 2402.14740)."""

    baseline = "rloo"


class RejectionSettings(AdvantageSettings):
    """Options of rejection sampling."""

    threshold: float = 1.0
    """Generations are kept whose weighted sum of rewards is at least this."""


@register("advantage", "rejection")
class RejectionSampling(AdvantageEstimator):
    """1 for every generation that is kept, 0 for the others: SFT on the policy's own correct generations.

    Rejection sampling fine-tuning (RFT, arXiv 2308.01825); with new samples in every step it is expert iteration, and
    RAFT (arXiv 2304.06767) with a threshold in place of the best of a group. There is no baseline, so groups whose
    generations are all kept train too.
    """

    Settings: ClassVar[type[Any]] = RejectionSettings

    def __call__(self, rewards: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
        return (rewards >= self.settings.threshold).to(rewards.dtype)

    def problems(self) -> Iterator[Problem]:
        """Options of estimators that normalise."""
        for name in ("normalize_separately", "population_std"):
            if getattr(self.settings, name):
                yield Problem(f"{KEY}.{name}", "has no effect: rejection sampling does not normalise.", "remove it.")


def resolve_advantage(algorithm: AlgorithmConfig) -> AdvantageEstimator:
    """The estimator that a recipe names, with its options. Raises ConfigError that names the key."""
    estimator = ADVANTAGES.find(algorithm.advantage.name)
    made = estimator(read_options(algorithm.advantage, estimator.Settings, KEY), algorithm.scale_rewards)
    if problems := list(made.problems()):
        raise to_error(problems, f"{KEY}={algorithm.advantage.name}")
    return made
