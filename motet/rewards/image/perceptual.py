"""Distances of two images: in pixels (MSE), in local structure (SSIM), in a network's features (LPIPS)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def mse(first: Float[Tensor, "B C H W"], second: Float[Tensor, "B C H W"]) -> Float[Tensor, "B"]:
    """Mean squared difference of pixels in [0, 1], per image; in [0, 1]."""
    return (first.float() - second.float()).square().flatten(1).mean(dim=1)


def ssim(first: Float[Tensor, "B C H W"], second: Float[Tensor, "B C H W"]) -> Float[Tensor, "B"]:
    """Mean structural similarity of pixels in [0, 1], per image; in [-1, 1], 1 for equal images.

    Wang et al. 2004 (IEEE TIP 13:4), equation 13 with its constants: a Gaussian window of 11 x 11 with standard
    deviation 1.5, `K1 = 0.01`, `K2 = 0.03`, range 1; averaged over the windows inside the image and over the channels.
    Images have at least 11 x 11 pixels.
    """
    channels = first.shape[1]
    a, b = first.float(), second.float()
    window = _gaussian(a).expand(channels, 1, WINDOW, WINDOW)

    def local_mean(x: Tensor) -> Tensor:
        return F.conv2d(x, window, groups=channels)

    mean_a, mean_b = local_mean(a), local_mean(b)
    variance_a = local_mean(a * a) - mean_a.square()
    variance_b = local_mean(b * b) - mean_b.square()
    covariance = local_mean(a * b) - mean_a * mean_b
    c1, c2 = K1**2, K2**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return (luminance * structure).flatten(1).mean(dim=1)


def lpips(
    first: Sequence[Float[Tensor, "B _ _ _"]],
    second: Sequence[Float[Tensor, "B _ _ _"]],
    weights: Sequence[Float[Tensor, "_"]],
) -> Float[Tensor, "B"]:
    """LPIPS of two images' feature maps `[B, C, H, W]`, one pair per layer, with `weights` `[C]` per layer.

    Zhang et al. 2018 (arXiv 1801.03924), equation 1: features are scaled to unit length over the channels of a place;
    the weighted squared differences are summed over channels, averaged over places and summed over layers. As in the
    published weights, a weight multiplies the *squared* difference (it is the square of the paper's `w`).
    """
    total = torch.zeros(len(first[0]), device=first[0].device)
    for a, b, weight in zip(first, second, weights, strict=True):
        difference = (_unit(a) - _unit(b)).square()
        total = total + torch.einsum("bchw,c->bhw", difference, weight.to(difference)).flatten(1).mean(dim=1)
    return total


def _unit(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Unit length over channels; a place without any activation stays 0."""
    return F.normalize(features.float(), dim=1, eps=1e-10)


def _gaussian(like: Tensor) -> Float[Tensor, "1 1 K K"]:
    offsets = torch.arange(WINDOW, dtype=like.dtype, device=like.device) - (WINDOW - 1) / 2
    bell = torch.exp(-offsets.square() / (2 * SIGMA**2))
    bell = bell / bell.sum()
    return torch.outer(bell, bell)[None, None]
