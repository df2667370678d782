"""Guidance of denoising: a velocity as a weighted sum of branches, each under its own condition."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from motet.core.trajectory import Sampling
from motet.numerics.flow.path import at_least_float32, broadcast_like
from motet.numerics.transfers import index_on, to_device

Velocity = Callable[[Float[Tensor, "A *D"], Float[Tensor, "A"], Sequence[Any]], Float[Tensor, "A *D"]]
"""A network: states, their sigmas and a condition for each -> velocities `noise - image`."""
Rescale = Callable[[Float[Tensor, "A *D"], Float[Tensor, "A *D"]], Float[Tensor, "A *D"]]
"""A guided velocity, and the conditional one -> the velocity that is followed (Qwen-Image)."""


@dataclass(frozen=True, eq=False)
class GuidanceBranches:
    """An act's velocity: `sum_k weights[k] v(x, conditions[k])`; the weights add up to 1.

    `scored` are the branches of the scoring distribution where it differs from the sampled one (`conditional`).
    `rescale` maps the sum and the first branch's velocity to the velocity that is followed; None: the sum itself.
    """

    conditions: tuple[Any, ...]
    weights: tuple[float, ...]
    scored: GuidanceBranches | None = None
    rescale: Rescale | None = None

    @property
    def scoring(self) -> GuidanceBranches:
        """The branches that the act's log-probs speak of."""
        return self.scored or self


def guidance_branches(
    sampling: Sampling, condition: Any, null: Any = None, image_cond: Any = None, rescale: Rescale | None = None
) -> GuidanceBranches:
    """The branches of an act under its guidance.

    `null`: the condition without prompt and source; `image_cond`: with the source image, without the instruction.
    `rescale`: what the model's own pipeline does to a guided velocity (`Denoiser.rescale`).
    Without a source `u + s (c - u)` (Ho & Salimans, arXiv 2207.12598); with one `u + i (p - u) + s (c - p)`, where `i`
    is `image_guidance_scale` (InstructPix2Pix, arXiv 2211.09800, eq. 3).
    """
    conditional_only = GuidanceBranches((condition,), (1.0,))
    if sampling.guidance == "none":
        return conditional_only
    scale, image_scale = sampling.guidance_scale, sampling.image_guidance_scale
    if image_cond is None:
        mixed = ((condition, null), (scale, 1 - scale))
    else:
        mixed = ((condition, image_cond, null), (scale, image_scale - scale, 1 - image_scale))
    kept = [(one, weight) for one, weight in zip(*mixed, strict=True) if weight]
    conditions, weights = (tuple(part) for part in zip(*kept, strict=True))
    scored = conditional_only if sampling.guidance == "conditional" else None
    return GuidanceBranches(conditions, weights, scored, rescale if scale and len(conditions) > 1 else None)


def guided_velocity(
    network: Velocity, x: Float[Tensor, "A *D"], sigma: Float[Tensor, "A"], branches: Sequence[GuidanceBranches]
) -> Float[Tensor, "A *D"]:
    """Row a's velocity under `branches[a]`, in float32 at least; all branches of all rows are one batch."""
    if not branches:  # acts without actions: samples of the ODE
        return at_least_float32(x)
    owner = index_on(x.device, [n for n, own in enumerate(branches) for _ in own.conditions])
    conditions = [condition for own in branches for condition in own.conditions]
    velocities = at_least_float32(network(x[owner], sigma[owner], conditions))
    if len(conditions) == len(branches):
        return velocities
    weights = to_device(
        torch.tensor([weight for own in branches for weight in own.weights]), x.device, velocities.dtype
    )
    mixed = torch.zeros(x.shape, dtype=velocities.dtype, device=x.device)
    mixed = mixed.index_add(0, owner, broadcast_like(weights, velocities) * velocities)
    first = list(itertools.accumulate((len(own.conditions) for own in branches), initial=0))
    for rescale in dict.fromkeys(own.rescale for own in branches):
        if rescale is not None:
            own_rows = [n for n, own in enumerate(branches) if own.rescale is rescale]
            rows, conditional = (index_on(x.device, places) for places in (own_rows, [first[n] for n in own_rows]))
            mixed = mixed.index_copy(0, rows, rescale(mixed[rows], velocities[conditional]))
    return mixed
