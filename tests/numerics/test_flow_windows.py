"""Windows of stochastic steps: which steps, where the window stands, how long it stays."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from motet.numerics.flow.schedules import linear_sigmas
from motet.numerics.flow.windows import progressive_start, random_start, stochastic_steps, window_starts

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
def test_a_window_without_steps_is_refused(start: int, size: int | None) -> None:
    with pytest.raises(ValueError, match="no stochastic step"):
        stochastic_steps(linear_sigmas(5), start, size)
    with pytest.raises(ValueError, match="no stochastic step"):
        stochastic_steps(linear_sigmas(1))
    with pytest.raises(ValueError, match="fall strictly"):
        stochastic_steps(torch.tensor([0.0, 0.5, 1.0]))


@pytest.mark.parametrize(
    ("num_stochastic", "size", "stride", "expected"),
    [(4, 2, 1, (0, 1, 2)), (4, 2, 2, (0, 2)), (5, 2, 2, (0, 2, 3)), (6, 4, 9, (0, 2)), (3, 3, 1, (0,))],
)
def test_where_windows_stand(num_stochastic: int, size: int, stride: int, expected: tuple[int, ...]) -> None:
    assert window_starts(num_stochastic, size, stride) == expected


@pytest.mark.parametrize(("num_stochastic", "size", "stride"), [(3, 4, 1), (3, 0, 1), (3, 2, 0)])
def test_windows_that_do_not_fit_are_refused(num_stochastic: int, size: int, stride: int) -> None:
    with pytest.raises(ValueError, match="no window"):
        window_starts(num_stochastic, size, stride)


def test_every_action_gets_its_turn() -> None:
    times = linear_sigmas(10)
    turns = Counter(
        step
        for start in window_starts(9, 4, 3)
        for step, taken in enumerate(stochastic_steps(times, start, 4))
        if taken
    )
    assert set(turns) == set(range(9))


def test_the_window_slides() -> None:
    starts = window_starts(4, 2, 1)
    walk = [progressive_start(n, starts, interval=2) for n in range(8)]
    assert walk == [0, 0, 1, 1, 2, 2, 0, 0]


def test_senseless_numbers_are_refused() -> None:
    for iteration, interval in [(-1, 1), (0, 0)]:
        with pytest.raises(ValueError, match="at least 0 and 1"):
            progressive_start(iteration, (0, 1), interval=interval)


def test_a_random_window_is_any_of_them_alike() -> None:
    starts = (0, 2, 3, 7)
    drawn = Counter(random_start((n + 0.5) / 100, starts) for n in range(100))
    assert drawn == {0: 25, 2: 25, 3: 25, 7: 25}
    assert random_start(0.0, starts) == 0 and random_start(1 - 2**-53, starts) == 7
