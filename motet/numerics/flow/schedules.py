"""Noise schedules: the sigmas from 1 to 0 that a rollout walks, `times [S + 1]` for S steps.

A schedule is made once, when an act begins, and stored with the act (`DenoisingSteps.times`). The steps of
`motet.numerics.flow.steps` take the two sigmas of each step and know neither S nor a shift, so a replay cannot walk
another schedule than its rollout did.

All shifts are one function with one number, the ratio of the noise's odds:
`sigma' / (1 - sigma') = shift * sigma / (1 - sigma)`. More pixels need more noise to lose the same signal, so larger
pictures take larger shifts (SD3, arXiv 2403.03206, section 5.3.2). Computed in float64, returned in float32.
"""

from __future__ import annotations

import itertools
import math
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor


def linear_sigmas(num_steps: int, shift: float = 1.0) -> Float[Tensor, "S1"]:
    """`1, 1 - 1/S, ..., 1/S, 0`, shifted: the schedule of FLUX's pipeline, DanceGRPO and MixGRPO (its shift is 3)."""
    _at_least_one(num_steps)
    return shift_sigmas(torch.linspace(1.0, 0.0, num_steps + 1, dtype=torch.float64), shift).float()


def scheduler_sigmas(num_steps: int, shift: float = 1.0, num_train_timesteps: int = 1000) -> Float[Tensor, "S1"]:
    """What diffusers' `FlowMatchEulerDiscreteScheduler(shift).set_timesteps(S)` walks: SD3, SANA, BLIP3o.

    S sigmas evenly spaced from 1 to the smallest *already shifted* training sigma, then shifted (again), then 0. So
    the last step is far shorter than the others: with S 10 and shift 3 it begins at sigma 0.0089.
    """
    _at_least_one(num_steps)
    smallest = shift_sigmas(torch.tensor([1.0 / num_train_timesteps], dtype=torch.float64), shift)
    levels = torch.linspace(1.0, float(smallest), num_steps, dtype=torch.float64)
    return torch.cat([shift_sigmas(levels, shift), torch.zeros(1, dtype=torch.float64)]).float()


def shift_sigmas(sigmas: Float[Tensor, "*S"], shift: float) -> Float[Tensor, "*S"]:
    """`shift sigma / (1 + (shift - 1) sigma)` (SD3, arXiv 2403.03206, eq. 23); 0 and 1 stay, above 1 adds noise.

    diffusers' dynamic shifting `e^mu / (e^mu + 1 / sigma - 1)` is this with `shift = e^mu`, its type "linear" this with
    `shift = mu`.
    """
    if shift <= 0:
        raise ValueError(f"shift is {shift}: it must be positive; 1 leaves the sigmas as they are.")
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def dynamic_shift(
    image_seq_len: int,
    *,
    base_seq_len: int = 256,
    max_seq_len: int = 4096,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
) -> float:
    """The shift `e^mu` for a picture of `image_seq_len` transformer tokens, with FLUX's numbers as defaults.

    `mu` is the line through `(base_seq_len, base_shift)` and `(max_seq_len, max_shift)`, not clamped at its ends
    (diffusers' `calculate_shift`). FLUX counts patches of 16 x 16 pixels: 256 at 256 px, 4096 at 1024 px.
    """
    slope = (max_shift - base_shift) / (max_seq_len - base_seq_len)
    return math.exp(base_shift + slope * (image_seq_len - base_seq_len))


def check_times(times: Float[Tensor, "S1"]) -> None:
    """Raises ValueError unless the sigmas start at 1 at most, fall strictly, and end at 0."""
    values = cast("list[float]", times.tolist())  # pyright: ignore[reportUnknownMemberType]
    falling = all(after < before for before, after in itertools.pairwise(values))
    if len(values) < 2 or not falling or values[0] > 1 or values[-1] != 0:
        raise ValueError(f"not a schedule from noise to picture: {values}; sigmas fall strictly from 1 to 0.")


def _at_least_one(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps}: a drawing takes one step at least.")
