"""Packed sums and means against loops and hand arithmetic."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motet.numerics.reductions import segment_mean, segment_sum


def test_segment_sum_and_mean_by_hand() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 8.0])
    owner = torch.tensor([0, 2, 0, 2])  # act 0 has 1 and 4, act 2 has 2 and 8, acts 1 and 3 are empty
    assert segment_sum(values, owner, 4).tolist() == [5.0, 0.0, 10.0, 0.0]
    assert segment_mean(values, owner, 4).tolist() == [2.5, 0.0, 5.0, 0.0]


def test_no_actions() -> None:
    values, owner = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    assert segment_sum(values, owner, 2).tolist() == [0.0, 0.0]
    assert segment_mean(values, owner, 2).tolist() == [0.0, 0.0]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(-100, 100)), min_size=1, max_size=20),
)
@settings(deadline=None, max_examples=50)
def test_segments_equal_a_loop(pairs: list[tuple[int, float]]) -> None:
    owner = torch.tensor([segment for segment, _ in pairs])
    values = torch.tensor([value for _, value in pairs], dtype=torch.float64)
    for segment in range(5):
        mine = [value for where, value in pairs if where == segment]
        torch.testing.assert_close(segment_sum(values, owner, 5)[segment].item(), float(sum(mine)))
        torch.testing.assert_close(segment_mean(values, owner, 5)[segment].item(), sum(mine) / max(len(mine), 1))


def test_gradients_reach_every_value() -> None:
    values = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    owner = torch.tensor([0, 1, 1])
    (segment_mean(values, owner, 2) * torch.tensor([3.0, 5.0])).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [3.0, 2.5, 2.5]  # 3 / 1 action, 5 / 2 actions
    doubles = values.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: segment_sum(v, owner, 2), doubles)
    assert torch.autograd.gradcheck(lambda v: segment_mean(v, owner, 2), doubles)
