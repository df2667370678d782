"""How an act is sampled. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from motet.core.errors import ConfigError

Guidance = Literal["none", "guided", "conditional"]
SdeType = Literal["flow_sde", "dance_sde", "cps"]


@dataclass(frozen=True)
class Sampling:
    """How an act is sampled, and so the *scoring distribution* whose log-probs it carries (docs/algorithms.md).

    Every kind of act uses the fields that concern it; a kind with further ones has a subclass.

    `temperature` 0 is greedy decoding; its log-probs are those of temperature 1, and such an act cannot be trained.
    `guidance`: `none` samples and scores the conditional distribution; `guided` samples the mixture
    `u + scale * (c - u)` of conditional and unconditional logits, scores it and replays both branches; `conditional`
    samples the mixture but scores the conditional branch, as the CoRL and T2I-R1 code does (a biased choice).
    Denoising has no temperature but `noise_level`, which scales the noise of a stochastic step of `sde_type`
    (`motet.numerics.flow.steps`); temperature 0 follows the ODE: the first noise alone is random. `sde_window` (first
    step, size) makes the steps outside it deterministic, and so no actions; None: all but the last are stochastic.
    `image_guidance_scale` is the weight of the source image in an edit's guidance, `shift` the schedule's, None: the
    checkpoint's own.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance: Guidance = "none"
    guidance_scale: float = 1.0
    max_tokens: int = 512
    num_steps: int = 10
    noise_level: float = 0.7
    sde_type: SdeType = "flow_sde"
    sde_window: tuple[int, int] | None = None
    image_guidance_scale: float = 1.0
    shift: float | None = None
    min_p: float | None = None

    def __post_init__(self) -> None:
        """Raise ConfigError for an unknown name or a value out of range: a notebook reads no recipe to check them."""
        for key, known in (("guidance", get_args(Guidance)), ("sde_type", get_args(SdeType))):
            value = getattr(self, key)
            if value not in known:
                scale = "; its strength is guidance_scale" if key == "guidance" else ""
                raise ConfigError(
                    f"Sampling({key}={value!r}) is unknown.", fix=f"use one of {', '.join(known)}{scale}."
                )
        for key, (lowest, highest, open_below) in _RANGES.items():
            value = getattr(self, key)
            if value is None:
                continue
            if value < lowest or value > highest or (open_below and value == lowest):
                above = f"more than {lowest}" if open_below else f"at least {lowest}"
                most = "" if highest == math.inf else f" and at most {highest}"
                raise ConfigError(f"Sampling({key}={value!r}) is out of range.", fix=f"use {above}{most}.")
        if self.sde_type == "cps" and self.noise_level > 1:
            raise ConfigError(
                f"Sampling(sde_type='cps', noise_level={self.noise_level!r}) is out of range.",
                fix="use a noise_level of at most 1: that of cps is the share of new noise.",
            )

    @property
    def scoring(self) -> dict[str, Any]:
        """What makes logits the scoring distribution, as `scoring_logits` takes it: for sampling and replay alike."""
        limits = {"top_k": self.top_k, "top_p": self.top_p, "min_p": self.min_p}
        return {"temperature": self.scoring_temperature, **limits}

    @property
    def scoring_temperature(self) -> float:
        """The temperature of the scored distribution: 1 for greedy decoding."""
        return self.temperature or 1.0


_RANGES: dict[str, tuple[float, float, bool]] = {
    "temperature": (0, math.inf, False),
    "top_k": (1, math.inf, False),
    "top_p": (0, 1, True),
    "min_p": (0, 1, False),
    "max_tokens": (1, math.inf, False),
    "num_steps": (1, math.inf, False),
    "noise_level": (0, math.inf, False),
    "shift": (0, math.inf, True),
}
"""Lowest and highest value of a setting, and whether the lowest is excluded."""
