"""Sums and means per act over packed actions.

The actions of all acts are concatenated on one axis `A`, without padding; `owner: Int[A]` is the index of the act
(0..B-1) of each action. Acts without actions are allowed: their sum and mean are 0.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def segment_sum(values: Float[Tensor, "A"], owner: Int[Tensor, "A"], num_segments: int) -> Float[Tensor, "B"]:
    """`sum_{a: owner_a = b} values_a` for every segment b, with gradient; B is `num_segments`."""
    return values.new_zeros(num_segments).index_add(0, owner, values)


def segment_mean(values: Float[Tensor, "A"], owner: Int[Tensor, "A"], num_segments: int) -> Float[Tensor, "B"]:
    """Mean of each segment's values, with gradient; 0 for a segment without values."""
    counts = segment_sum(torch.ones_like(values), owner, num_segments)
    return segment_sum(values, owner, num_segments) / counts.clamp(min=1.0)
