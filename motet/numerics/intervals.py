"""Confidence intervals of means, over few seeds or many items."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The mean and the half-width of Student's interval around it: `t(n - 1) * s / sqrt(n)`.

    Of one value the half-width is infinite: nothing is known of its spread. Raises ValueError for none.
    """
    if not values:
        raise ValueError("a mean needs a value")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, math.inf
    spread = statistics.stdev(values) / math.sqrt(len(values))
    return mean, student_t(len(values) - 1, confidence) * spread


def paired_interval(
    before: Sequence[float | None], after: Sequence[float | None], confidence: float = 0.95
) -> tuple[float, float] | None:
    """`mean_interval` of after - before, item by item; an item that lacks one of the two is left out.

    Narrower than what two intervals of means suggest: how hard an item is cancels. None where no item has both; raises
    ValueError for lists of unequal lengths.
    """
    both = zip(before, after, strict=True)
    differences = [new - old for old, new in both if old is not None and new is not None]
    return mean_interval(differences, confidence) if differences else None


def student_t(freedom: int, confidence: float = 0.95) -> float:
    """The t with `P(|T| < t) = confidence` for Student's distribution with this many degrees of freedom."""
    low, high = 0.0, 1.0
    while _inside(high, freedom) < confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < confidence else (low, middle)
    return (low + high) / 2


def _inside(t: float, freedom: int) -> float:
    """`P(|T| < t)`, by Simpson's rule over the angle `atan(t / sqrt(n))`, where the density is a power of a cosine."""
    end = math.atan(t / math.sqrt(freedom))
    scale = 2 * math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    pieces = 400
    step = end / pieces
    weights = (1 if k in (0, pieces) else 4 if k % 2 else 2 for k in range(pieces + 1))
    return scale * step / 3 * sum(w * math.cos(k * step) ** (freedom - 1) for k, w in enumerate(weights))
