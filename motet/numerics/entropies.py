"""Which actions of an optimizer step the policy is least sure of."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TIE = 1e-5
"""Entropies that differ by less are equal: siblings' first tokens are, up to the rounding of their micro-batches."""


def highest_entropies(entropies: Float[Tensor, "A"], share: float) -> Bool[Tensor, "A"]:
    """The actions at or above the `1 - share` quantile of the entropies: `share` of them, at least one.

    The forking tokens of "Beyond the 80/20 Rule" (arXiv 2506.01939, eq. 5). The quantile interpolates as
    `torch.quantile` does, which takes at most 16 million values.
    """
    if not len(entropies):
        return torch.zeros_like(entropies, dtype=torch.bool)
    ordered = entropies.float().sort().values
    place = (1.0 - share) * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    threshold = torch.lerp(ordered[low], ordered[high], place - low)
    return entropies >= threshold - TIE
