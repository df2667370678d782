"""Agreement of scores over groups: by hand, and against torch and brute force on random groups."""

import math
import random

import pytest
import torch

from motet.numerics.agreement import bootstrap, overall, pairwise_accuracy, within

BY_HAND = [[(1.0, 0.9), (0.0, 0.4), (1.0, 0.4)], [(0.0, 0.8), (0.0, 0.1)], [(1.0, 0.2), (0.0, 0.6)], []]


def test_ranked_right_by_hand():
    # Pairs that the first score tells apart: 0.9 > 0.4 right, 0.4 = 0.4 half, 0.2 < 0.6 wrong.
    assert pairwise_accuracy(BY_HAND) == pytest.approx(1.5 / 3)
    assert math.isnan(pairwise_accuracy([[(1.0, 0.1), (1.0, 0.2)], []]))


def test_correlations_by_hand():
    assert overall([[(0.0, 1.0)], [(1.0, 3.0)], [(2.0, 5.0)]]) == pytest.approx(1.0)
    # Across groups the second score rises with the first; within each it falls.
    misleading = [[(0.0, 1.0), (1.0, 0.0)], [(10.0, 11.0), (11.0, 10.0)]]
    assert overall(misleading) > 0.95 and within(misleading) == pytest.approx(-1.0)
    assert math.isnan(overall([[(1.0, 0.2), (1.0, 0.7)]])) and math.isnan(within([[(1.0, 0.2)], [(2.0, 0.7)]]))
    assert math.isnan(overall([])) and math.isnan(overall([[(1.0, 2.0)]]))


def test_what_is_constant_within_groups_is_so_at_any_size():
    large = [[(chance, 123456789.1 * group) for chance in (0.1, 0.7, 0.3)] for group in (1, 2, 3)]
    assert math.isnan(within(large)) and within([[(0.1, 1e-6), (0.7, 9e-6), (0.3, 3e-6)]]) > 0.9


def random_groups(seed, count=40, size=5):
    chance = random.Random(seed)
    return [
        [(one := chance.gauss(0, 1), 0.5 * one + chance.gauss(shift, 1)) for _ in range(size)]
        for shift in (chance.gauss(0, 3) for _ in range(count))
    ]


def test_correlations_equal_torch():
    groups = torch.tensor(random_groups(0), dtype=torch.float64)
    flat, centred = groups.flatten(0, 1), (groups - groups.mean(1, keepdim=True)).flatten(0, 1)
    pairs = [[(one, other) for one, other in group] for group in groups.tolist()]
    assert overall(pairs) == pytest.approx(torch.corrcoef(flat.T)[0, 1].item(), abs=1e-12)
    assert within(pairs) == pytest.approx(torch.corrcoef(centred.T)[0, 1].item(), abs=1e-12)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    # Corr(x, x / 2 + e) = 0.5 / sqrt(1.25) within groups, whatever the groups' shifts.
    truth, covered = 0.5 / math.sqrt(1.25), 0
    for seed in range(60):
        low, high = bootstrap(random_groups(seed), within, rounds=100, seed=seed)
        assert low < high
        covered += low <= truth <= high
    assert 49 <= covered <= 60  # 95 % of 60 is 57; fewer than 49 has a chance below 1e-4
    assert all(math.isnan(end) for end in bootstrap([[(1.0, 1.0)]], within))
