"""Formulas for merging the weights of models trained from one base, per tensor.

    delta_i = W_i - W_base
    gaussian        W_base + (in_1 + in_2) / 2 + (out_1 + out_2)
    average         sum_i w_i W_i / sum_i w_i
    norm_weighted   W_base + sum_i delta_i / |delta_i|  /  sum_i 1 / |delta_i|

Gaussian merge is the variant of the CoRL release (arXiv 2505.17534) of the outlier amplification of Si, Jiang and Shen
(arXiv 2501.10661). With m the mean of the two deltas' means and s the smaller of their unbiased standard deviations, an
element of a delta is an inlier (`in`) if |delta - m| < 2 s, strictly, and an outlier (`out`) otherwise, separately for
each delta. Inliers are averaged, outliers are summed.

Edge cases: if one model did not change a tensor, s = 0, so the other's delta consists of outliers and is kept in full;
the same holds for two constant deltas and for one-element tensors, whose standard deviation counts as 0. Equal deltas
are averaged where they are inliers and doubled where they are outliers. Deltas that are constant up to rounding have a
tiny, meaningless s, and may count as either.

The norm-weighted mean (the release's other merge) weights each delta by the inverse of its Frobenius norm, computed
over all elements of a tensor of any shape, so that a large change does not dominate a small one. Its limit for a delta
of norm 0 is the base: a tensor that one model did not change stays unchanged.

Everything is computed in float32, in float64 if any input is float64, and returned in the first argument's dtype.
Integer tensors and different shapes raise ValueError; nothing is broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

SIGMAS = 2.0
"""Half the width of the inlier band in standard deviations; the value of CoRL's release."""


def gaussian_merge(
    base: Shaped[Tensor, "..."], a: Shaped[Tensor, "..."], b: Shaped[Tensor, "..."]
) -> Shaped[Tensor, "..."]:
    """Gaussian merge of two models: inlier changes averaged, outlier changes summed; see the module."""
    merged, _ = gaussian_deltas(delta(base, a), delta(base, b))
    return add_delta(base, merged)


def average(models: Sequence[Shaped[Tensor, "..."]], weights: Sequence[float] | None = None) -> Shaped[Tensor, "..."]:
    """The weighted mean of any number of models. Raises ValueError unless the sum of `weights` is positive."""
    shares = [1.0] * len(models) if weights is None else list(weights)
    if not models or len(shares) != len(models) or not sum(shares) > 0:
        raise ValueError(f"{len(models)} models with the weights {shares}: give one weight each, of positive sum.")
    total = torch.zeros_like(models[0], dtype=_compute_dtype(*models))
    for share, model in zip(shares, models, strict=True):
        total += (share / sum(shares)) * model.to(total.dtype)
    return total.to(models[0].dtype)


def norm_weighted(base: Shaped[Tensor, "..."], models: Sequence[Shaped[Tensor, "..."]]) -> Shaped[Tensor, "..."]:
    """Merge of any number of models, each change weighted by the inverse of its Frobenius norm."""
    return add_delta(base, norm_weighted_deltas([delta(base, model) for model in models]))


def delta(base: Shaped[Tensor, "..."], model: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """model - base, in the dtype that merges are computed in."""
    dtype = _compute_dtype(base, model)
    return model.to(dtype) - base.to(dtype)


def add_delta(base: Shaped[Tensor, "..."], change: Shaped[Tensor, "..."]) -> Shaped[Tensor, "..."]:
    """base + change, in the base's dtype."""
    dtype = _compute_dtype(base, change)
    return (base.to(dtype) + change.to(dtype)).to(base.dtype)


def gaussian_deltas(
    first: Shaped[Tensor, "..."], second: Shaped[Tensor, "..."]
) -> tuple[Shaped[Tensor, "..."], tuple[Bool[Tensor, "..."], Bool[Tensor, "..."]]]:
    """The merged delta of two, and masks of the outliers of each; see the module."""
    dtype = _compute_dtype(first, second)
    first, second = first.to(dtype), second.to(dtype)
    centre = 0.5 * (first.mean() + second.mean()) if first.numel() > 0 else first.new_zeros(())
    std = torch.minimum(first.std(), second.std()) if first.numel() > 1 else first.new_zeros(())
    # One delta after the other, since the largest tensor of a model fills gigabytes.
    outliers = tuple(~((change - centre).abs_() < SIGMAS * std) for change in (first, second))
    merged = torch.where(outliers[0], first, 0.5 * first)
    merged += torch.where(outliers[1], second, 0.5 * second)
    return merged, (outliers[0], outliers[1])


def norm_weighted_deltas(deltas: Sequence[Shaped[Tensor, "..."]]) -> Shaped[Tensor, "..."]:
    """The mean of deltas weighted by inverse Frobenius norms; zeros if any of them is zero, which is the limit."""
    if not deltas:
        raise ValueError("no deltas to merge: give at least one.")
    dtype = _compute_dtype(*deltas)
    norms = [_norm(change.to(dtype)) for change in deltas]
    if any(float(norm) == 0 for norm in norms):
        return torch.zeros_like(deltas[0], dtype=dtype)
    # Norms relative to the smallest one: 1 / 1e-40 would overflow.
    shares = torch.stack([min(norms) / norm for norm in norms])
    total = torch.zeros_like(deltas[0], dtype=dtype)
    for share, change in zip(shares / shares.sum(), deltas, strict=True):
        total += share * change.to(dtype)
    return total


def _norm(change: Shaped[Tensor, "..."]) -> Shaped[Tensor, ""]:
    """The Frobenius norm, with squares relative to the largest element, so that small ones do not underflow."""
    peak = change.abs().amax() if change.numel() else change.new_zeros(())
    return peak * (change / peak).square_().sum().sqrt() if bool(peak > 0) else peak


def _compute_dtype(*tensors: Tensor) -> torch.dtype:
    """float64 if any is, else float32. Raises ValueError for integers and for different shapes."""
    for tensor in tensors:
        if not tensor.is_floating_point():
            raise ValueError(f"tensors of {tensor.dtype} cannot be averaged; merge floating-point tensors only.")
        if tensor.shape != tensors[0].shape:
            raise ValueError(f"shapes differ: {tuple(tensors[0].shape)} and {tuple(tensor.shape)}.")
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32
