"""Windows of stochastic steps: which steps of a schedule are actions."""

from __future__ import annotations

import pytest
import torch

from motet.numerics.flow.schedules import linear_sigmas
from motet.numerics.flow.windows import stochastic_steps

T, F = True, False


@pytest.mark.parametrize(
    ("start", "size", "expected"),
    [
        (0, None, (T, T, T, T, F)),
        (2, None, (F, F, T, T, F)),
        (0, 2, (T, T, F, F, F)),
        (1, 2, (F, T, T, F, F)),
        (3, 2, (F, F, F, T, F)),  # the last step is never one
    ],
)
def test_which_steps_are_actions(start: int, size: int | None, expected: tuple[bool, ...]) -> None:
    assert stochastic_steps(linear_sigmas(5), start, size) == expected


@pytest.mark.parametrize(("start", "size"), [(4, 1), (4, None), (0, 0), (-1, 3), (9, 2)])
def test_a_window_without_steps_is_rejected(start: int, size: int | None) -> None:
    with pytest.raises(ValueError, match="no stochastic step"):
        stochastic_steps(linear_sigmas(5), start, size)
    with pytest.raises(ValueError, match="no stochastic step"):
        stochastic_steps(linear_sigmas(1))
    with pytest.raises(ValueError, match="decrease strictly"):
        stochastic_steps(torch.tensor([0.0, 0.5, 1.0]))
