"""Statistics of images that need no model: edges, colours, and how much the images of a group differ.

Pixels are RGB in [0, 1], `[B, 3, H, W]`. Colours are counted in `LEVELS` levels per channel.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

LEVELS = 4
"""Levels per channel: 64 colours, so that the entropy is in [0, 6] bits."""
EDGE = 0.1
"""Smallest difference of luminance, of black and white being 1, that is an edge."""

Pixels = Float[Tensor, "B 3 H W"]


def edge_density(pixels: Pixels) -> Float[Tensor, "B"]:
    """Share of places whose luminance changes by more than `EDGE` between neighbours, in [0, 1].

    The change is the length of the gradient by Sobel's 3 x 3 kernels, divided by 4: a step from 0 to 1 has length 1.
    Luminance is that of ITU-R BT.601. The outermost pixels have no gradient; smaller images than 3 x 3 raise.
    """
    weights = pixels.new_tensor((0.299, 0.587, 0.114)).view(1, 3, 1, 1)
    luminance = (pixels * weights).sum(dim=1, keepdim=True)
    sobel = pixels.new_tensor(((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))) / 4
    gradient = F.conv2d(luminance, torch.stack((sobel, sobel.T)).unsqueeze(1))
    return (gradient.square().sum(dim=1).sqrt() > EDGE).float().flatten(1).mean(dim=1)


def colour_histogram(pixels: Pixels) -> Float[Tensor, "B K"]:
    """Shares of the `LEVELS` ** 3 colours."""
    levels = (pixels * LEVELS).long().clamp(0, LEVELS - 1)
    colours = (levels * levels.new_tensor((LEVELS**2, LEVELS, 1)).view(1, 3, 1, 1)).sum(dim=1).flatten(1)
    counts = torch.zeros(len(pixels), LEVELS**3, device=pixels.device)
    counts.scatter_add_(1, colours, torch.ones_like(colours, dtype=counts.dtype))
    return counts / colours.shape[1]


def colour_entropy(histogram: Float[Tensor, "B K"]) -> Float[Tensor, "B"]:
    """Shannon entropy of the colours in bits; 0 for an image of one colour."""
    return -torch.xlogy(histogram, histogram).sum(dim=1) / math.log(2)


def dominant_colour(histogram: Float[Tensor, "B K"]) -> Float[Tensor, "B"]:
    """Share of the most frequent colour, in (0, 1]."""
    return histogram.amax(dim=1)


def colour_distance(histogram: Float[Tensor, "G K"]) -> float:
    """Mean over pairs of the total variation distance of their colours, in [0, 1]: wherever in the image they are."""
    return _mean_over_pairs(torch.cdist(histogram, histogram, p=1.0) / 2)


def pixel_distance(pixels: Pixels) -> float:
    """Mean over pairs of the root mean squared difference of their pixels, in [0, 1]."""
    flat = pixels.flatten(1)
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    return _mean_over_pairs(distances / flat.shape[1] ** 0.5)


def _mean_over_pairs(distances: Float[Tensor, "G G"]) -> float:
    """The mean off the diagonal of a symmetric matrix of at least two rows."""
    count = len(distances)
    return float(distances.sum() / (count * (count - 1)))
