"""Statistics of evaluations: confidence intervals of means, and the agreement of two scores over groups."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence

ScorePairs = Sequence[tuple[float, float]]
"""One group of generations: the two scores of each."""


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The mean and the half-width of Student's confidence interval around it, `t(n - 1) * s / sqrt(n)`.

    The half-width is infinite for one value. Raises ValueError for none.
    """
    if not values:
        raise ValueError("the mean of no values is not defined.")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return mean, math.inf
    standard_error = statistics.stdev(values) / math.sqrt(len(values))
    return mean, student_t(len(values) - 1, confidence) * standard_error


def item_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """`mean_interval` over items whose values lie in [0, 1], or in the range that they span with it.

    Values without spread do not make the mean certain. A share p of items with other values stays unseen in n items
    with the probability (1 - p)^n, so p is at most 1 - (1 - confidence)^(1/n), which is about 3/n (the rule of three:
    Hanley and Lippman-Hand 1983, "If nothing goes wrong, is everything all right?", JAMA 249, pages 1743-1745). The
    half-width is then that share times the farthest that a value of the range is from the mean. Where all values are in
    [0, 1] it is never larger than that farthest. Raises ValueError for no values.
    """
    low, high = min([0.0, *values]), max([1.0, *values])
    return _with_unseen_items(values, low, high, confidence, bounded=(low, high) == (0.0, 1.0))


def paired_interval(
    before: Sequence[float | None], after: Sequence[float | None], confidence: float = 0.95
) -> tuple[float, float] | None:
    """`item_interval` of after - before, item by item; items for which one of them is None are left out.

    Narrower than two separate intervals suggest, because the difficulty of the items cancels. None if no item has both.
    Raises ValueError if the lengths differ.
    """
    pairs = zip(before, after, strict=True)
    both = [(old, new) for old, new in pairs if old is not None and new is not None]
    if not both:
        return None
    values = [value for pair in both for value in pair]
    span = max(1.0, *values) - min(0.0, *values)
    return _with_unseen_items([new - old for old, new in both], -span, span, confidence, bounded=span == 1.0)


def _with_unseen_items(
    values: Sequence[float], low: float, high: float, confidence: float, *, bounded: bool
) -> tuple[float, float]:
    """See `item_interval`; `low` and `high` are the range of values, `bounded`: no value can be outside it."""
    mean, half_width = mean_interval(values, confidence)
    if len(values) == 1:
        return mean, half_width
    farthest = max(mean - low, high - mean)
    if max(values) - min(values) <= 1e-9 * (high - low):
        half_width = (1 - (1 - confidence) ** (1 / len(values))) * farthest
    return mean, min(half_width, farthest) if bounded else half_width


def effect_size(differences: Sequence[float]) -> float | None:
    """Cohen's d_z of paired differences: their mean over their standard deviation.

    None for fewer than two, and if all are equal.
    """
    if len(differences) < 2 or not (deviation := statistics.stdev(differences)):
        return None
    return statistics.fmean(differences) / deviation


def student_t(degrees_of_freedom: int, confidence: float = 0.95) -> float:
    """The t with `P(|T| < t) = confidence` for Student's t-distribution, by bisection."""
    low, high = 0.0, 1.0
    while _student_cdf_two_sided(high, degrees_of_freedom) < confidence:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        below = _student_cdf_two_sided(middle, degrees_of_freedom) < confidence
        low, high = (middle, high) if below else (low, middle)
    return (low + high) / 2


def _student_cdf_two_sided(t: float, degrees_of_freedom: int) -> float:
    """`P(|T| < t)`, by Simpson's rule over the angle `atan(t / sqrt(n))`, where the density is a power of a cosine."""
    n = degrees_of_freedom
    end = math.atan(t / math.sqrt(n))
    scale = 2 * math.exp(math.lgamma((n + 1) / 2) - math.lgamma(n / 2)) / math.sqrt(math.pi)
    intervals = 400
    step = end / intervals
    weights = (1 if k in (0, intervals) else 4 if k % 2 else 2 for k in range(intervals + 1))
    return scale * step / 3 * sum(w * math.cos(k * step) ** (n - 1) for k, w in enumerate(weights))


def pooled_correlation(groups: Sequence[ScorePairs]) -> float:
    """Pearson's correlation over all generations of all groups; NaN if one of the scores is constant."""
    return _pearson([pair for group in groups for pair in group])


def within_group_correlation(groups: Sequence[ScorePairs]) -> float:
    """Pearson's correlation after subtracting each group's means, as group-relative advantages do.

    Scores can correlate across prompts, because some prompts are easier, without telling the generations of a prompt
    apart.
    """
    deviations: list[tuple[float, float]] = []
    for group in groups:
        means = [statistics.fmean(pair[n] for pair in group) for n in (0, 1)] if group else []
        deviations += [(first - means[0], second - means[1]) for first, second in group]
    size = max((abs(score) for group in groups for pair in group for score in pair), default=1.0)
    return _pearson(deviations, size)


def pairwise_accuracy(groups: Sequence[ScorePairs]) -> float:
    """Among pairs of a group whose first scores differ, the fraction that the second score ranks alike; ties count 1/2.

    If the first score is binary this is the area under the ROC curve within groups. 0.5 is chance; NaN if no first
    scores differ.
    """
    correct, pairs = 0.0, 0
    for group in groups:
        for n, (first, second) in enumerate(group):
            for other_first, other_second in group[:n]:
                if first != other_first:
                    pairs += 1
                    agreement = (first - other_first) * (second - other_second)
                    correct += 0.5 if agreement == 0 else float(agreement > 0)
    return correct / pairs if pairs else math.nan


def bootstrap_interval(
    groups: Sequence[ScorePairs],
    statistic: Callable[[Sequence[ScorePairs]], float],
    *,
    confidence: float = 0.95,
    rounds: int = 300,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of a statistic, resampling whole groups (Efron 1979); NaNs if it is never finite."""
    generator, values = random.Random(seed), list[float]()
    for _ in range(rounds):
        value = statistic(generator.choices(groups, k=len(groups)))
        if math.isfinite(value):
            values.append(value)
    if not values:
        return math.nan, math.nan
    values.sort()
    tail = (1 - confidence) / 2
    return values[int(tail * len(values))], values[min(len(values) - 1, int((1 - tail) * len(values)))]


def _pearson(pairs: ScorePairs, size: float = 1.0) -> float:
    """NaN if a score is constant up to rounding, relative to scores of this `size`."""
    if len(pairs) < 2:
        return math.nan
    first, second = zip(*pairs, strict=True)
    if any(max(scores) - min(scores) < 1e-9 * max(1.0, size) for scores in (first, second)):
        return math.nan
    return statistics.correlation(first, second)
