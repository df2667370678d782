"""Select the actions of an optimizer step with the highest entropy."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TOLERANCE = 1e-5
"""Entropies that differ by less count as equal: those of a group's first tokens differ by rounding only."""


def highest_entropies(entropies: Float[Tensor, "A"], fraction: float) -> Bool[Tensor, "A"]:
    """A mask of the actions at or above the `1 - fraction` quantile of the entropies (in nats); at least one is True.

    The forking tokens of "Beyond the 80/20 Rule" (arXiv 2506.01939, eq. 5). The quantile interpolates linearly as
    `torch.quantile`, which is limited to 16 million values, does.
    """
    if not len(entropies):
        return torch.zeros_like(entropies, dtype=torch.bool)
    ordered = entropies.float().sort().values
    position = (1.0 - fraction) * (len(ordered) - 1)
    low = int(position)
    high = min(low + 1, len(ordered) - 1)
    threshold = torch.lerp(ordered[low], ordered[high], position - low)
    return entropies >= threshold - TOLERANCE
