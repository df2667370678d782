"""Flow matching: the supervised loss of a velocity network, and the noise levels to train it at.

Lipman et al., arXiv 2210.02747; Esser et al. (SD3), arXiv 2403.03206. The network's input is `interpolate(x_0, noise,
sigma)` of `motet.numerics.flow.path`, its target `noise - x_0`. Randomness is an argument: uniforms in [0, 1) from the
caller's generator.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from motet.numerics.flow.path import at_least_float32, row_mean, target_velocity


def flow_matching_loss(
    velocity: Float[Tensor, "B *D"], clean: Float[Tensor, "B *D"], noise: Float[Tensor, "B *D"]
) -> Float[Tensor, "B"]:
    """`(v - (noise - x_0))^2` of each image, averaged over its dimensions (arXiv 2210.02747, eq. 23)."""
    return row_mean((at_least_float32(velocity) - target_velocity(clean, noise)).square())


def logit_normal_sigmas(uniforms: Float[Tensor, "B"], mean: float = 0.0, std: float = 1.0) -> Float[Tensor, "B"]:
    """`sigmoid(mean + std z)` with `z` standard normal: mostly middle noise levels (SD3, arXiv 2403.03206, eq. 19).

    `z` is the normal quantile of the uniform. A positive `mean` shifts towards noise. To shift for a resolution, pass
    the result through `motet.numerics.flow.schedules.shift_sigmas`.
    """
    z = cast("Tensor", torch.special.ndtri(uniforms))  # pyright: ignore[reportUnknownMemberType]
    return torch.sigmoid(mean + std * z)
