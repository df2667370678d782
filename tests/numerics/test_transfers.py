"""Fetching many 0-d tensors at once gives the floats that `item()` gives one by one."""

import torch

from motet.numerics.transfers import fetch


def test_values_come_back_exactly_and_in_order():
    values = [
        torch.tensor(0.1),
        torch.tensor(2**40 + 1),
        0.3,
        torch.tensor(True),
        torch.tensor(0.7, dtype=torch.float64),
    ]
    values += [torch.tensor(torch.nan), 4.0, torch.tensor(1 / 3, requires_grad=True)]
    one_by_one = [value.item() if isinstance(value, torch.Tensor) else value for value in values]
    fetched = fetch(values)
    assert all(isinstance(value, float) for value in fetched)
    assert [str(value) for value in fetched] == [str(float(value)) for value in one_by_one]
    assert fetch([]) == []
