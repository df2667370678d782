"""Statistics of images that need no model: edges, colours, and how much the images of a group differ.

Pixels are RGB in [0, 1], `[B, 3, H, W]`. Colours are counted in `LEVELS` levels per channel.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

LEVELS = 4
"""Levels per channel: 64 colours, so that the entropy is in [0, 6] bits."""
EDGE = 0.1
"""Smallest difference of luminance, of black and white being 1, that is an edge."""
BACKGROUND = 0.2
"""Distance in RGB, of black and white being the root of 3, up to which a pixel has the colour of the background."""
EMPTY = 0.005
"""Share of pixels below which what is not background is not content."""

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
    colours = _colours(pixels)
    counts = torch.zeros(len(pixels), LEVELS**3, device=pixels.device)
    counts.scatter_add_(1, colours, torch.ones_like(colours, dtype=counts.dtype))
    return counts / colours.shape[1]


def colour_entropy(histogram: Float[Tensor, "B K"]) -> Float[Tensor, "B"]:
    """Shannon entropy of the colours in bits; 0 for an image of one colour."""
    return -torch.xlogy(histogram, histogram).sum(dim=1) / math.log(2)


def dominant_colour(histogram: Float[Tensor, "B K"]) -> Float[Tensor, "B"]:
    """Share of the most frequent colour, in (0, 1]."""
    return histogram.amax(dim=1)


def content_colours(pixels: Pixels) -> Float[Tensor, "B K"]:
    """Shares of the `LEVELS` ** 3 colours among the pixels that are not background; each row adds up to 1.

    The background is all that is within `BACKGROUND` of the mean of an image's most frequent colour. An image that is
    nothing but background, up to a share of `EMPTY`, has the colours of the background.
    """
    most = colour_histogram(pixels).argmax(dim=1)
    own = (_colours(pixels) == most.unsqueeze(1)).float()
    flat = pixels.flatten(2)
    mean = (flat * own.unsqueeze(1)).sum(dim=2, keepdim=True) / own.sum(dim=1).view(-1, 1, 1)
    content = ((flat - mean).square().sum(dim=1).sqrt() > BACKGROUND).float()
    is_empty = content.mean(dim=1, keepdim=True) < EMPTY
    weights = torch.where(is_empty, torch.ones_like(content), content)
    counts = torch.zeros(len(pixels), LEVELS**3, device=pixels.device)
    counts.scatter_add_(1, _colours(pixels), weights)
    return counts / weights.sum(dim=1, keepdim=True)


def effective_number(histogram: Float[Tensor, "G K"]) -> float:
    """The number of different rows, in [1, G], where rows that share half of their mass count as half different.

    The Vendi score (Friedman and Dieng 2022, arXiv 2210.02410, definition 3.1): the exponential of the Shannon entropy
    of the eigenvalues of K / G. The kernel K is the intersection of histograms, 1 less the total variation distance.
    """
    kernel = 1.0 - torch.cdist(histogram.double(), histogram.double(), p=1.0) / 2
    shares = np.linalg.eigvalsh((kernel / len(histogram)).cpu().numpy())
    return math.exp(-sum(share * math.log(share) for share in shares.tolist() if share > 0.0))


def colour_distance(histogram: Float[Tensor, "G K"]) -> float:
    """Mean over pairs of the total variation distance of their colours, in [0, 1]: wherever in the image they are."""
    return _mean_over_pairs(torch.cdist(histogram, histogram, p=1.0) / 2)


def pixel_distance(pixels: Pixels) -> float:
    """Mean over pairs of the root mean squared difference of their pixels, in [0, 1]."""
    flat = pixels.flatten(1)
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    return _mean_over_pairs(distances / flat.shape[1] ** 0.5)


def _colours(pixels: Pixels) -> Int[Tensor, "B N"]:
    """The number of each pixel's colour."""
    levels = (pixels * LEVELS).long().clamp(0, LEVELS - 1)
    return (levels * levels.new_tensor((LEVELS**2, LEVELS, 1)).view(1, 3, 1, 1)).sum(dim=1).flatten(1)


def _mean_over_pairs(distances: Float[Tensor, "G G"]) -> float:
    """The mean off the diagonal of a symmetric matrix of at least two rows."""
    count = len(distances)
    return float(distances.sum() / (count * (count - 1)))
