"""How well one score agrees with another over groups of siblings: what a reward is worth to group-relative learning."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence

Pairs = Sequence[tuple[float, float]]
"""One group: for every sibling its two scores."""


def overall(groups: Sequence[Pairs]) -> float:
    """Pearson's correlation over all siblings of all groups; NaN where one score is constant."""
    return _pearson([pair for group in groups for pair in group])


def within(groups: Sequence[Pairs]) -> float:
    """Pearson's correlation of what is left when each group's means are subtracted, as advantages do.

    A score can agree across prompts, because it knows which are easy, and tell no sibling from another.
    """
    rest: list[tuple[float, float]] = []
    for group in groups:
        means = [statistics.fmean(pair[n] for pair in group) for n in (0, 1)] if group else []
        rest += [(one - means[0], other - means[1]) for one, other in group]
    return _pearson(rest, max((abs(score) for group in groups for pair in group for score in pair), default=1.0))


def pairwise_accuracy(groups: Sequence[Pairs]) -> float:
    """Of the sibling pairs whose first scores differ, the share that the second orders alike; ties count half.

    With a first score of right and wrong this is the area under the ROC curve within groups. 0.5 is chance; NaN where
    no first scores differ.
    """
    right, pairs = 0.0, 0
    for group in groups:
        for n, (one, score) in enumerate(group):
            for other, against in group[:n]:
                if one != other:
                    pairs += 1
                    agrees = (one - other) * (score - against)
                    right += 0.5 if agrees == 0 else float(agrees > 0)
    return right / pairs if pairs else math.nan


def bootstrap(
    groups: Sequence[Pairs],
    statistic: Callable[[Sequence[Pairs]], float],
    *,
    confidence: float = 0.95,
    rounds: int = 300,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic, whole groups drawn with replacement (Efron 1979); NaNs where it has none."""
    chance, values = random.Random(seed), list[float]()
    for _ in range(rounds):
        value = statistic(chance.choices(groups, k=len(groups)))
        if math.isfinite(value):
            values.append(value)
    if not values:
        return math.nan, math.nan
    values.sort()
    tail = (1 - confidence) / 2
    return values[int(tail * len(values))], values[min(len(values) - 1, int((1 - tail) * len(values)))]


def _pearson(pairs: Pairs, size: float = 1.0) -> float:
    """NaN for a constant: one whose spread is rounding, beside scores of this `size`."""
    if len(pairs) < 2:
        return math.nan
    ones, others = zip(*pairs, strict=True)
    if any(max(scores) - min(scores) < 1e-9 * max(1.0, size) for scores in (ones, others)):
        return math.nan
    return statistics.correlation(ones, others)
