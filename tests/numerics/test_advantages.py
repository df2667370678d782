"""Advantages: hand arithmetic, a naive reference in Python floats, and properties of failed generations."""

from __future__ import annotations

import math
import statistics
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.numerics.advantages import (
    Baseline,
    Scale,
    batch_advantages,
    group_advantages,
    normalize_separately,
    zero_variance,
)

NAN = float("nan")
BASELINES: tuple[Baseline, ...] = ("grpo", "rloo")
SCALES: tuple[Scale, ...] = ("group", "batch", "none")

rewards_in_quarters = st.one_of(st.just(NAN), st.integers(-8, 8).map(lambda quarters: quarters / 4))
batches = st.integers(2, 6).flatmap(
    lambda size: st.lists(st.lists(rewards_in_quarters, min_size=size, max_size=size), min_size=1, max_size=4)
)


def naive(groups: list[list[float]], baseline: Baseline, scale: Scale) -> list[list[float]]:
    """The definition, generation by generation."""
    all_rewards = [r for group in groups for r in group if not math.isnan(r)]
    result = []
    for group in groups:
        valid = [r for r in group if not math.isnan(r)]
        teaches = len(valid) > 1 and max(valid) > min(valid)
        row = []
        for g, reward in enumerate(group):
            if math.isnan(reward) or not teaches:
                row.append(0.0)
                continue
            others = [r for h, r in enumerate(group) if h != g and not math.isnan(r)]
            advantage = reward - statistics.fmean(valid if baseline == "grpo" else others)
            if scale != "none":
                advantage /= statistics.stdev(valid if scale == "group" else all_rewards) + 1e-4
            row.append(advantage)
        result.append(row)
    return result


@pytest.mark.parametrize("scale", ["group", "batch"])
def test_the_population_deviation_by_hand(scale: Scale) -> None:
    """Flow-GRPO's code (`numpy.std` of all rewards): means 2.5 and 2, squared deviations 5 of the group, 9.5 of all."""
    rewards = torch.tensor([[1.0, 2.0, 3.0, 4.0], [2.0, 2.0, 2.0, NAN]])
    std = math.sqrt(5 / 4) if scale == "group" else statistics.pstdev([1, 2, 3, 4, 2, 2, 2])
    expected = torch.tensor([[-1.5, -0.5, 0.5, 1.5], [0.0] * 4]) / (std + 1e-4)
    torch.testing.assert_close(batch_advantages(rewards, scale=scale, population=True), expected)
    each = normalize_separately(rewards[:1], torch.tensor([2.0]), population=True)
    torch.testing.assert_close(each, 2 * torch.tensor([-1.5, -0.5, 0.5, 1.5]) / (math.sqrt(5 / 4) + 1e-4))


def test_grpo_by_hand() -> None:
    # mean 2.5, unbiased variance (2.25 + 0.25 + 0.25 + 2.25) / 3 = 5/3, std 1.2909944
    advantages = group_advantages(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    expected = torch.tensor([-1.5, -0.5, 0.5, 1.5]) / (1.2909944 + 1e-4)
    torch.testing.assert_close(advantages, expected)


def test_the_constant_added_to_the_deviation_is_1e_4() -> None:
    # std of (0, 1e-4 sqrt 2) is 1e-4, so the advantages are -+ 0.5 sqrt 2 1e-4 / (1e-4 + 1e-4) = -+ 0.35355
    advantages = group_advantages(torch.tensor([0.0, 1e-4 * 2**0.5]))
    torch.testing.assert_close(advantages, torch.tensor([-0.353553, 0.353553]))


def test_rloo_by_hand() -> None:
    # means of the others of (1, 2, 3, 6): 11/3, 10/3, 9/3, 6/3
    advantages = group_advantages(torch.tensor([1.0, 2.0, 3.0, 6.0]), baseline="rloo", scale="none")
    torch.testing.assert_close(advantages, torch.tensor([1 - 11 / 3, 2 - 10 / 3, 0.0, 4.0]))


def test_dr_grpo_subtracts_the_mean_only() -> None:
    advantages = group_advantages(torch.tensor([0.0, 0.0, 0.0, 10.0]), scale="none")
    assert advantages.tolist() == [-2.5, -2.5, -2.5, 7.5]


def test_batch_scale_by_hand() -> None:
    # each group's own mean, but one std: of (0, 2, 10, 14), mean 6.5, (42.25 + 20.25 + 12.25 + 56.25) / 3 = 131/3
    advantages = batch_advantages(torch.tensor([[0.0, 2.0], [10.0, 14.0]]), scale="batch")
    expected = torch.tensor([[-1.0, 1.0], [-2.0, 2.0]]) / (math.sqrt(131 / 3) + 1e-4)
    torch.testing.assert_close(advantages, expected)


def test_a_dropped_sibling_gets_zero_and_moves_nobody() -> None:
    # survivors 1 and 3: mean 2, std sqrt 2
    advantages = group_advantages(torch.tensor([1.0, NAN, 3.0]))
    torch.testing.assert_close(advantages, torch.tensor([-1.0, 0.0, 1.0]) / (2**0.5 + 1e-4))


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    "group", [[0.1] * 7, [5.0, NAN, NAN], [NAN, NAN], [0.0, 0.0], [0.3, 0.3000001], [-0.7, NAN, -0.7]]
)
def test_a_group_that_teaches_nothing_gets_exact_zeros(group: list[float], scale: Scale, baseline: Baseline) -> None:
    rewards = torch.tensor([group])
    assert zero_variance(rewards[0])
    assert batch_advantages(rewards, baseline=baseline, scale=scale).tolist() == [[0.0] * len(group)]


@pytest.mark.parametrize("group", [[0.0, 1.0], [1e-7, 2e-7], [NAN, 1000.0, 1001.0], [0.0, 1e-5], [math.inf, 0.0]])
def test_small_variance_is_still_variance(group: list[float]) -> None:
    assert not zero_variance(torch.tensor(group))


def test_an_infinite_reward_is_not_hidden() -> None:
    assert not bool(group_advantages(torch.tensor([1.0, math.inf, 2.0])).isfinite().all())
    assert not bool(group_advantages(torch.tensor([math.inf, math.inf])).isfinite().all())


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("scale", SCALES)
@given(groups=batches)
@settings(deadline=None, max_examples=50)
def test_equals_the_definition(groups: list[list[float]], baseline: Baseline, scale: Scale) -> None:
    advantages = batch_advantages(torch.tensor(groups), baseline=baseline, scale=scale)
    expected = torch.tensor(naive(groups, baseline, scale))
    torch.testing.assert_close(advantages, expected, rtol=1e-5, atol=1e-6)
    for group, row in zip(groups, advantages, strict=True):
        if scale != "batch":
            single: Literal["group", "none"] = scale
            torch.testing.assert_close(group_advantages(torch.tensor(group), baseline=baseline, scale=single), row)
        valid = [r for r in group if not math.isnan(r)]
        assert zero_variance(torch.tensor(group)) == (len(set(valid)) < 2)


def test_normalize_separately_by_hand() -> None:
    values = torch.tensor([[0.0, 2.0], [100.0, 300.0]])
    # each row is -+1/sqrt 2 after normalisation, however large its values
    unit = torch.tensor([1.0 / (2**0.5 + 1e-4), 100.0 / (100 * 2**0.5 + 1e-4)])
    total = normalize_separately(values, torch.tensor([1.0, 0.8]))
    expected = unit[0] * 1.0 + unit[1] * 0.8
    torch.testing.assert_close(total, torch.stack([-expected, expected]))


def test_normalize_separately_keeps_apart_what_a_plain_sum_confuses() -> None:
    # GDPO's point: one reward won or both won, the sums (0, 1) and (0, 2) are normalised to the same advantages
    one, both = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    torch.testing.assert_close(group_advantages(one.sum(0)), group_advantages(both.sum(0)), rtol=1e-3, atol=0.0)
    torch.testing.assert_close(2 * normalize_separately(one, torch.ones(2)), normalize_separately(both, torch.ones(2)))


def test_a_reward_that_does_not_apply_is_left_out() -> None:
    values = torch.tensor([[0.0, 1.0, 2.0], [NAN, NAN, NAN]])
    expected = group_advantages(values[0])
    torch.testing.assert_close(normalize_separately(values, torch.tensor([1.0, 5.0])), expected)


def test_a_sibling_without_one_reward_is_dropped_from_all() -> None:
    values = torch.tensor([[0.0, 1.0, 50.0], [3.0, 5.0, NAN]])
    total = normalize_separately(values, torch.ones(2))
    expected = group_advantages(values[0, :2]) + group_advantages(values[1, :2])
    torch.testing.assert_close(total, torch.cat([expected, torch.tensor([NAN])]), equal_nan=True)
    assert group_advantages(total)[2] == 0.0


def test_a_group_to_which_no_reward_applies_is_dropped() -> None:
    total = normalize_separately(torch.full((2, 3), NAN), torch.ones(2))
    assert bool(total.isnan().all())
    assert group_advantages(total).tolist() == [0.0, 0.0, 0.0]


def test_a_reward_without_variance_adds_nothing() -> None:
    values = torch.tensor([[0.0, 1.0, 2.0], [0.3, 0.3, 0.3]])
    torch.testing.assert_close(normalize_separately(values, torch.tensor([1.0, 5.0])), group_advantages(values[0]))
