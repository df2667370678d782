"""The section `sampling.masked_image` of a recipe, and the sampling that it becomes. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from motet.config.problem import Problem
from motet.config.sampling import KindSamplingConfig
from motet.core.sampling import Sampling

Schedule = Literal["cosine", "linear"]


@dataclass(frozen=True)
class MaskedSampling(Sampling):
    """`schedule` says how many tokens each of `num_steps` steps un-masks, `order_noise` how random their choice is."""

    schedule: Schedule = "cosine"
    order_noise: float = 1.0


class MaskedSamplingConfig(KindSamplingConfig):
    """How acts of masked image tokens are sampled, and so scored."""

    num_steps: PositiveInt = 4
    """Steps until no token is masked."""
    temperature: PositiveFloat = 1.0
    """Softmax temperature of sampling, of the log-probs and of their replay."""
    schedule: Schedule = "cosine"
    """Tokens that are still masked as steps go on; cosine un-masks few at first (MaskGIT, arXiv 2202.04200)."""
    order_noise: NonNegativeFloat = 1.0
    """Weight of Gumbel noise in the choice of the positions to un-mask; 0 takes the most confident."""

    def at(self, step: int = 0, uniform: float = 0.0) -> MaskedSampling:
        return MaskedSampling(
            temperature=self.temperature,
            num_steps=self.num_steps,
            schedule=self.schedule,
            order_noise=self.order_noise,
        )

    def unused(self, section: str) -> Iterator[Problem]:
        if self.num_steps == 1:
            text = f"has no effect while {section}.num_steps is 1."
            yield Problem(f"{section}.order_noise", text, f"remove it, or raise {section}.num_steps.")
