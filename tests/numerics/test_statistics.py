"""Intervals against printed tables and hand calculations; agreement of scores against torch and brute force."""

import math
import random

import pytest
import torch

from motet.numerics.statistics import (
    bootstrap_interval,
    item_interval,
    mean_interval,
    paired_interval,
    pairwise_accuracy,
    pooled_correlation,
    student_t,
    within_group_correlation,
)

TABLE = {(1, 0.95): 12.706, (2, 0.95): 4.303, (4, 0.95): 2.776, (9, 0.99): 3.250, (30, 0.9): 1.697, (120, 0.95): 1.980}
BY_HAND = [[(1.0, 0.9), (0.0, 0.4), (1.0, 0.4)], [(0.0, 0.8), (0.0, 0.1)], [(1.0, 0.2), (0.0, 0.6)], []]


@pytest.mark.parametrize(("case", "t"), TABLE.items(), ids=str)
def test_t_equals_the_printed_table(case, t):
    assert student_t(*case) == pytest.approx(t, abs=6e-4)


def test_mean_interval_by_hand():
    mean, half_width = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0 and half_width == pytest.approx(2.776 * math.sqrt(2.5 / 5), abs=1e-3)
    assert mean_interval([0.7]) == (0.7, math.inf)
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])


def test_paired_interval_is_the_interval_of_the_differences():
    before, after = [0.0, 10.0, None, 20.0, 5.0], [1.0, 12.0, 9.0, 23.0, None]
    mean, half_width = paired_interval(before, after)  # differences 1, 2, 3
    assert mean == 2.0 and half_width == pytest.approx(4.303 * 1 / math.sqrt(3), abs=1e-3)
    assert paired_interval([None, 1.0], [1.0, None]) is None
    with pytest.raises(ValueError, match="longer"):
        paired_interval([1.0], [1.0, 2.0])


def test_items_without_spread_leave_the_rule_of_three():
    zero_of_48 = item_interval([0.0] * 48)
    assert zero_of_48 == (0.0, pytest.approx(1 - 0.05 ** (1 / 48))) and zero_of_48[1] == pytest.approx(3 / 48, rel=0.04)
    assert (1 - zero_of_48[1]) ** 48 == pytest.approx(0.05)  # that a share of so many items stays unseen
    assert item_interval([1.0] * 48) == (1.0, pytest.approx(zero_of_48[1]))
    assert item_interval([0.5] * 48)[1] == pytest.approx(zero_of_48[1] / 2)  # no value is farther than 0.5 from it
    assert item_interval([4.0] * 48)[1] == pytest.approx(zero_of_48[1] * 4)
    assert item_interval([0.0, 1.0, 1.0] * 9) == mean_interval([0.0, 1.0, 1.0] * 9)
    assert item_interval([0.0, 1.0, 1.0]) == (
        pytest.approx(2 / 3),
        pytest.approx(2 / 3),
    )  # of [0, 1]: 0.67 + 1.43 is not
    assert item_interval([0.0, 2.0, 2.0]) == mean_interval([0.0, 2.0, 2.0])  # of a reward whose range is not known
    assert paired_interval([0.0, 1.0, 0.0], [1.0, 0.0, 1.0]) == (pytest.approx(1 / 3), pytest.approx(4 / 3))
    assert item_interval([0.0]) == (0.0, math.inf)
    assert paired_interval([0.0, 1.0, 0.5], [0.0, 1.0, 0.5]) == (0.0, pytest.approx(1 - 0.05 ** (1 / 3)))
    assert paired_interval([0.0, 9.0], [1.0, 10.0])[1] == pytest.approx((1 - 0.05**0.5) * (1 + 10))
    with pytest.raises(ValueError, match="no values"):
        item_interval([])


def test_pairwise_accuracy_by_hand():
    # Pairs whose first scores differ: 0.9 > 0.4 correct, 0.4 = 0.4 half, 0.2 < 0.6 wrong.
    assert pairwise_accuracy(BY_HAND) == pytest.approx(1.5 / 3)
    assert math.isnan(pairwise_accuracy([[(1.0, 0.1), (1.0, 0.2)], []]))


def test_correlations_by_hand():
    assert pooled_correlation([[(0.0, 1.0)], [(1.0, 3.0)], [(2.0, 5.0)]]) == pytest.approx(1.0)
    # Across groups the second score rises with the first; within each group it falls.
    misleading = [[(0.0, 1.0), (1.0, 0.0)], [(10.0, 11.0), (11.0, 10.0)]]
    assert pooled_correlation(misleading) > 0.95
    assert within_group_correlation(misleading) == pytest.approx(-1.0)
    assert math.isnan(pooled_correlation([[(1.0, 0.2), (1.0, 0.7)]]))
    assert math.isnan(within_group_correlation([[(1.0, 0.2)], [(2.0, 0.7)]]))
    assert math.isnan(pooled_correlation([])) and math.isnan(pooled_correlation([[(1.0, 2.0)]]))


def test_scores_constant_within_groups_are_detected_at_any_scale():
    large = [[(chance, 123456789.1 * group) for chance in (0.1, 0.7, 0.3)] for group in (1, 2, 3)]
    assert math.isnan(within_group_correlation(large))
    assert within_group_correlation([[(0.1, 1e-6), (0.7, 9e-6), (0.3, 3e-6)]]) > 0.9


def random_groups(seed, count=40, size=5):
    generator = random.Random(seed)
    return [
        [(first := generator.gauss(0, 1), 0.5 * first + generator.gauss(shift, 1)) for _ in range(size)]
        for shift in (generator.gauss(0, 3) for _ in range(count))
    ]


def test_correlations_equal_torch():
    groups = torch.tensor(random_groups(0), dtype=torch.float64)
    flat, centred = groups.flatten(0, 1), (groups - groups.mean(1, keepdim=True)).flatten(0, 1)
    pairs = [[(first, second) for first, second in group] for group in groups.tolist()]
    assert pooled_correlation(pairs) == pytest.approx(torch.corrcoef(flat.T)[0, 1].item(), abs=1e-12)
    assert within_group_correlation(pairs) == pytest.approx(torch.corrcoef(centred.T)[0, 1].item(), abs=1e-12)


def test_bootstrap_interval_has_its_nominal_coverage():
    # Corr(x, x / 2 + e) = 0.5 / sqrt(1.25) within groups, whatever the groups' shifts.
    truth, covered = 0.5 / math.sqrt(1.25), 0
    for seed in range(60):
        low, high = bootstrap_interval(random_groups(seed), within_group_correlation, rounds=100, seed=seed)
        assert low < high
        covered += low <= truth <= high
    assert 49 <= covered <= 60  # 95% of 60 is 57; fewer than 49 has a probability below 1e-4
    assert all(math.isnan(end) for end in bootstrap_interval([[(1.0, 1.0)]], within_group_correlation))
