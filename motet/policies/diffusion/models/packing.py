"""Latents as sequences of patch tokens: FLUX and Qwen-Image. The generated image, then each source of its row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from motet.policies.diffusion.models.base import Condition


def pack(latents: Float[Tensor, "B C H W"], patch: int = 2) -> Float[Tensor, "B T D"]:
    """Patches of `patch x patch` cells as tokens, in raster order; D counts channels slowest."""
    return pixel_unshuffle(latents, patch).flatten(2).transpose(1, 2)


def unpack(tokens: Float[Tensor, "B T D"], shape: Sequence[int], patch: int = 2) -> Float[Tensor, "B C H W"]:
    """The latents of shape `[..., H, W]` that these tokens are; tokens behind them (of sources) are left out."""
    height, width = shape[-2] // patch, shape[-1] // patch
    return pixel_shuffle(tokens[:, : height * width].transpose(1, 2).unflatten(2, (height, width)), patch)


def batch_sources(conditions: Sequence[Condition]) -> list[Float[Tensor, "B C H W"]]:
    """The n-th sources of all rows as one batch each: row b's sources are its own, never those of another row."""
    return [torch.stack([c.sources[n] for c in conditions]) for n in range(len(conditions[0].sources))]


def position_grid(height: int, width: int, first: int = 0) -> Float[Tensor, "T 3"]:
    """Positions `(first, row, column)` of a grid of tokens; `first` tells the generated image and sources apart."""
    image_ids = torch.full((height, width), float(first))
    rows = torch.arange(height, dtype=torch.float32)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.float32)[None].expand(height, width)
    return torch.stack([image_ids, rows, columns], dim=-1).flatten(0, 1)
