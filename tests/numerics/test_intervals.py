"""Intervals against printed tables of Student's t and arithmetic by hand."""

import math

import pytest

from motet.numerics.intervals import mean_interval, paired_interval, student_t

TABLE = {(1, 0.95): 12.706, (2, 0.95): 4.303, (4, 0.95): 2.776, (9, 0.99): 3.250, (30, 0.9): 1.697, (120, 0.95): 1.980}


@pytest.mark.parametrize(("case", "t"), TABLE.items(), ids=str)
def test_t_equals_the_printed_table(case, t):
    assert student_t(*case) == pytest.approx(t, abs=6e-4)


def test_an_interval_by_hand():
    mean, half = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0 and half == pytest.approx(2.776 * math.sqrt(2.5 / 5), abs=1e-3)
    assert mean_interval([0.7]) == (0.7, math.inf)
    with pytest.raises(ValueError, match="needs a value"):
        mean_interval([])


def test_a_paired_interval_is_that_of_the_differences():
    before, after = [0.0, 10.0, None, 20.0, 5.0], [1.0, 12.0, 9.0, 23.0, None]
    mean, half = paired_interval(before, after)  # differences 1, 2, 3
    assert mean == 2.0 and half == pytest.approx(4.303 * 1 / math.sqrt(3), abs=1e-3)
    assert paired_interval([None, 1.0], [1.0, None]) is None
    with pytest.raises(ValueError, match="longer"):
        paired_interval([1.0], [1.0, 2.0])
