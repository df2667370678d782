"""Noise schedules: the sigmas from 1 to 0 of a denoising trajectory, `times [S + 1]` for S steps.

A schedule is computed once per act and stored with it (`DenoisingSteps.times`). The functions of
`motet.numerics.flow.steps` take the two sigmas of each step, not S or a shift, so a replay uses the same schedule as
its rollout.

All shifts are one function of one parameter, the factor on the odds of the noise:
`sigma' / (1 - sigma') = shift * sigma / (1 - sigma)`. More pixels need more noise to lose the same signal, so larger
images take larger shifts (SD3, arXiv 2403.03206, section 5.3.2). Computed in float64, returned in float32.
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
    _check_num_steps(num_steps)
    return shift_sigmas(torch.linspace(1.0, 0.0, num_steps + 1, dtype=torch.float64), shift).float()


def scheduler_sigmas(num_steps: int, shift: float = 1.0, num_train_timesteps: int = 1000) -> Float[Tensor, "S1"]:
    """The schedule of diffusers' `FlowMatchEulerDiscreteScheduler(shift).set_timesteps(S)`: SD3, SANA, BLIP3o.

    S sigmas evenly spaced from 1 to the smallest *already shifted* training sigma, shifted (again), then 0. So the last
    step is far shorter than the others: with S 10 and shift 3 it starts at sigma 0.0089.
    """
    _check_num_steps(num_steps)
    smallest = shift_sigmas(torch.tensor([1.0 / num_train_timesteps], dtype=torch.float64), shift)
    levels = torch.linspace(1.0, float(smallest), num_steps, dtype=torch.float64)
    return torch.cat([shift_sigmas(levels, shift), torch.zeros(1, dtype=torch.float64)]).float()


def shift_sigmas(sigmas: Float[Tensor, "*S"], shift: float) -> Float[Tensor, "*S"]:
    """`shift sigma / (1 + (shift - 1) sigma)` (SD3, arXiv 2403.03206, eq. 23); 0 and 1 stay, `shift > 1` adds noise.

    diffusers' dynamic shifting `e^mu / (e^mu + 1 / sigma - 1)` is this with `shift = e^mu`, its type "linear" this with
    `shift = mu`. Raises ValueError unless `shift` is positive.
    """
    if shift <= 0:
        raise ValueError(f"shift is {shift} and must be positive; 1 leaves the sigmas unchanged.")
    return shift * sigmas / (1 + (shift - 1) * sigmas)


def dynamic_shift(
    image_seq_len: int,
    *,
    base_seq_len: int = 256,
    max_seq_len: int = 4096,
    base_shift: float = 0.5,
    max_shift: float = 1.15,
) -> float:
    """The shift `e^mu` for an image of `image_seq_len` transformer tokens, with FLUX's values as defaults.

    `mu` is linear in the length, through `(base_seq_len, base_shift)` and `(max_seq_len, max_shift)`, and not clamped
    (diffusers' `calculate_shift`). FLUX counts patches of 16 x 16 pixels: 256 at 256 px, 4096 at 1024 px.
    """
    slope = (max_shift - base_shift) / (max_seq_len - base_seq_len)
    return math.exp(base_shift + slope * (image_seq_len - base_seq_len))


def check_times(times: Float[Tensor, "S1"]) -> None:
    """Raise ValueError unless the sigmas start at 1 or less, decrease strictly, and end at 0."""
    values = cast("list[float]", times.tolist())  # pyright: ignore[reportUnknownMemberType]
    decreasing = all(after < before for before, after in itertools.pairwise(values))
    if len(values) < 2 or not decreasing or values[0] > 1 or values[-1] != 0:
        raise ValueError(f"{values} is not a schedule: sigmas must decrease strictly from 1 or less to 0.")


def _check_num_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps is {num_steps} and must be at least 1.")
