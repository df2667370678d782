"""Merging the weights of models that were trained from one base: one tensor in, one tensor out.

    delta_i = W_i - W_base
    gaussian        W_base + (in_1 + in_2) / 2 + (out_1 + out_2)
    average         sum_i w_i W_i / sum_i w_i
    norm_weighted   W_base + sum_i delta_i / |delta_i|  /  sum_i 1 / |delta_i|

Gaussian merge is the variant of the CoRL release (arXiv 2505.17534) of the outlier amplification of Si, Jiang and Shen
(arXiv 2501.10661): with m the mean of the two deltas' means and s the smaller of their unbiased standard deviations, an
element of a delta is an inlier (`in`) when |delta - m| < 2 s, strictly, and an outlier (`out`) otherwise; each delta is
judged by itself, element by element. Inliers are averaged, outliers are added up in full.

The edges follow from that. A tensor that one model left alone has s = 0, so all of the other's delta is an outlier and
is taken in full, as is the sum of two constant deltas and of the deltas of a one-element tensor, whose standard
deviation counts as 0. Equal deltas are averaged where they are inliers and doubled where they are outliers. Deltas that
are constant but for rounding have a tiny s of no meaning, and may fall on either side.

The norm-weighted mean (the release's other merge) weights each delta by the inverse of its Frobenius norm, a tensor of
any shape counting as one long vector, so that a model that moved far does not drown one that moved little. Its limit
for a delta of norm 0 is the base itself: a tensor that one model left alone stays where it was in all.

Everything is computed in float32, in float64 if any input is float64, and returned in the first argument's dtype.
Integer tensors have no mean: ValueError, as for shapes that differ (nothing is broadcast).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

SIGMAS = 2.0
"""Half the width of the inlier band in standard deviations; CoRL's value."""


def gaussian_merge(
    base: Shaped[Tensor, "..."], a: Shaped[Tensor, "..."], b: Shaped[Tensor, "..."]
) -> Shaped[Tensor, "..."]:
    """Two models merged over their base: inlying changes averaged, outlying ones added; see the module."""
    merged, _ = gaussian_deltas(delta(base, a), delta(base, b))
    return moved(base, merged)


def average(models: Sequence[Shaped[Tensor, "..."]], weights: Sequence[float] | None = None) -> Shaped[Tensor, "..."]:
    """The mean of any number of models; `weights` need not add up to 1, only to something positive."""
    shares = [1.0] * len(models) if weights is None else list(weights)
    if not models or len(shares) != len(models) or not sum(shares) > 0:
        raise ValueError(f"{len(models)} models with the weights {shares}: give one weight each, of positive sum.")
    total = torch.zeros_like(models[0], dtype=_wide(*models))
    for share, model in zip(shares, models, strict=True):
        total += (share / sum(shares)) * model.to(total.dtype)
    return total.to(models[0].dtype)


def norm_weighted(base: Shaped[Tensor, "..."], models: Sequence[Shaped[Tensor, "..."]]) -> Shaped[Tensor, "..."]:
    """Any number of models merged over their base, each change weighted by the inverse of its Frobenius norm."""
    return moved(base, norm_weighted_deltas([delta(base, model) for model in models]))


def delta(base: Shaped[Tensor, "..."], model: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """What training changed, model - base, in the dtype that merges are computed in."""
    wide = _wide(base, model)
    return model.to(wide) - base.to(wide)


def moved(base: Shaped[Tensor, "..."], change: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """base + change, in the base's dtype."""
    wide = _wide(base, change)
    return (base.to(wide) + change.to(wide)).to(base.dtype)


def gaussian_deltas(
    first: Shaped[Tensor, "..."], second: Shaped[Tensor, "..."]
) -> tuple[Shaped[Tensor, "..."], tuple[Bool[Tensor, "..."], Bool[Tensor, "..."]]]:
    """Two deltas merged into one, and which elements of each were outliers; see the module."""
    wide = _wide(first, second)
    first, second = first.to(wide), second.to(wide)
    some = first.numel() > 0
    centre = 0.5 * (first.mean() + second.mean()) if some else first.new_zeros(())
    spread = torch.minimum(first.std(), second.std()) if first.numel() > 1 else first.new_zeros(())
    # One delta after the other, since the largest tensor of a model fills gigabytes.
    outlies = tuple(~((one - centre).abs_() < SIGMAS * spread) for one in (first, second))
    merged = torch.where(outlies[0], first, 0.5 * first)
    merged += torch.where(outlies[1], second, 0.5 * second)
    return merged, (outlies[0], outlies[1])


def norm_weighted_deltas(deltas: Sequence[Shaped[Tensor, "..."]]) -> Shaped[Tensor, "..."]:
    """Deltas merged into one by inverse Frobenius norms; zeros if any of them is zero, which is the limit."""
    if not deltas:
        raise ValueError("no deltas to merge: give one at least.")
    wide = _wide(*deltas)
    norms = [_norm(one.to(wide)) for one in deltas]
    if any(float(norm) == 0 for norm in norms):
        return torch.zeros_like(deltas[0], dtype=wide)
    # Norms relative to the smallest one: 1 / 1e-40 would overflow.
    shares = torch.stack([min(norms) / norm for norm in norms])
    total = torch.zeros_like(deltas[0], dtype=wide)
    for share, one in zip(shares / shares.sum(), deltas, strict=True):
        total += share * one.to(wide)
    return total


def _norm(one: Shaped[Tensor, "..."]) -> Shaped[Tensor, ""]:
    """The Frobenius norm. Squares are taken relative to the largest number, so that small ones do not vanish."""
    peak = one.abs().amax() if one.numel() else one.new_zeros(())
    return peak * (one / peak).square_().sum().sqrt() if bool(peak > 0) else peak


def _wide(*tensors: Tensor) -> torch.dtype:
    """float64 if any is, else float32. Raises ValueError for other numbers than floats, and for shapes that differ."""
    for one in tensors:
        if not one.is_floating_point():
            raise ValueError(f"a tensor of {one.dtype} cannot be merged: it has no mean.")
        if one.shape != tensors[0].shape:
            raise ValueError(f"shapes differ: {tuple(tensors[0].shape)} and {tuple(one.shape)}.")
    return torch.float64 if any(one.dtype == torch.float64 for one in tensors) else torch.float32
