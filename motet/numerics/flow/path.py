"""The straight path between an image and noise, and the estimates of both ends from a velocity.

Rectified flow (Liu et al., arXiv 2209.03003; Esser et al., arXiv 2403.03206, section 2) with sigma as time:

    x_sigma = (1 - sigma) x_0 + sigma noise        sigma 1 is noise, sigma 0 the image
    v       = dx / dsigma = noise - x_0            what the network is trained to predict from x_sigma and sigma

so a velocity at `x_sigma` also gives estimates of both ends, `x - sigma v` and `x + (1 - sigma) v`, and of the score,
`-(x + (1 - sigma) v) / sigma`. Rows are states of any shape `*D`; every row has its own sigma.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def interpolate(
    clean: Float[Tensor, "B *D"], noise: Float[Tensor, "B *D"], sigma: Float[Tensor, "B"]
) -> Float[Tensor, "B *D"]:
    """`(1 - sigma) x_0 + sigma noise`: the forward process."""
    level = broadcast_like(sigma, clean)
    return (1 - level) * clean + level * noise


def target_velocity(clean: Float[Tensor, "B *D"], noise: Float[Tensor, "B *D"]) -> Float[Tensor, "B *D"]:
    """`noise - x_0`: the velocity of the straight path, the same at every sigma."""
    return at_least_float32(noise) - at_least_float32(clean)


def clean_estimate(
    x: Float[Tensor, "B *D"], velocity: Float[Tensor, "B *D"], sigma: Float[Tensor, "B"]
) -> Float[Tensor, "B *D"]:
    """`x - sigma v`: the image at the end of the path if the velocity stayed constant."""
    return x - broadcast_like(sigma, velocity) * velocity


def noise_estimate(
    x: Float[Tensor, "B *D"], velocity: Float[Tensor, "B *D"], sigma: Float[Tensor, "B"]
) -> Float[Tensor, "B *D"]:
    """`x + (1 - sigma) v`: the noise at the start of the path if the velocity stayed constant."""
    return x + (1 - broadcast_like(sigma, velocity)) * velocity


def broadcast_like(values: Float[Tensor, "B"], like: Float[Tensor, "B *D"]) -> Tensor:
    """One value per row in the shape `[B, 1, ...]` that broadcasts over states, in at least float32."""
    return values.to(torch.promote_types(like.dtype, torch.float32)).view(-1, *[1] * (like.dim() - 1))


def at_least_float32(values: Tensor) -> Tensor:
    """In float32 or wider: differences of velocities are below the precision of bfloat16 (invariant 3)."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def row_mean(values: Float[Tensor, "B *D"]) -> Float[Tensor, "B"]:
    """Mean over a state's dimensions, in at least float32: used by every loss and log-density of a flow."""
    return at_least_float32(values).flatten(1).mean(dim=1)
