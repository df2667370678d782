"""Steps by the clock: as many as `run.minutes` leave time for, with the schedule ending with them."""

import pytest

from motet.config import RunConfig
from motet.training import time_budget as pace
from motet.training.optimizer_step import PolicyOptimizer
from motet.training.time_budget import Pace
from tests.runs import mapping, metrics, run_loop


class Clock:
    def __init__(self, monkeypatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(pace.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


def walk(kept: Pace, clock: Clock, seconds: list[float]) -> list[int]:
    """The number of steps in all that is told after each step."""
    told = []
    for each in seconds:
        clock.now += each
        kept.step_done()
        told.append(kept.steps)
    return told


def test_without_minutes_the_clock_does_not_matter(clock):
    assert walk(Pace(RunConfig(steps=9), 0, 0.0), clock, [1e4] * 9) == [9] * 9


def test_a_run_that_is_fast_enough_takes_its_steps_whatever_the_first_one_took(clock):
    assert walk(Pace(RunConfig(steps=30, minutes=1), 0, 0.0), clock, [20.0] + [1.0] * 29) == [30] * 30


def test_fewer_steps_where_the_time_is_short(clock):
    kept = Pace(RunConfig(steps=100, minutes=1), 0, 0.0)
    told = walk(kept, clock, [3.0] * 20)
    assert told[:7] == [100] * 7  # not known before the eighth step
    assert told[7:] == [20] * 13 and kept.seconds == 60.0


def test_the_estimate_follows_a_machine_that_slows_down(clock):
    kept = Pace(RunConfig(steps=100, minutes=2), 0, 0.0)
    assert walk(kept, clock, [1.0] * 30)[-1] == 100
    told = walk(kept, clock, [6.0] * 15)
    assert told[-1] == 45 == kept.done and kept.seconds == 120.0 and kept.seconds_left == 0.0


def test_a_resumed_run_knows_its_pace_from_before(clock):
    kept = Pace(RunConfig(steps=100, minutes=1), 10, 30.0)
    assert kept.steps == 20
    assert walk(kept, clock, [3.0] * 10) == [20] * 10
    assert Pace(RunConfig(steps=100, minutes=1), 20, 59.9).steps == 20  # it was finished
    assert Pace(RunConfig(steps=100, minutes=1), 3, 59.9).steps == 3  # so was this one


def test_the_schedule_ends_with_the_steps_that_there_is_time_for(tiny_checkpoint, tmp_path, monkeypatch):
    totals: list[int] = []
    step = PolicyOptimizer.step
    monkeypatch.setattr(
        PolicyOptimizer, "step", lambda self, *a, **k: totals.append(self.total_steps) or step(self, *a, **k)
    )
    updates = {"num_iterations": 2}
    recipe = mapping(tiny_checkpoint, run={"steps": 12, "minutes": 1e-6}, algorithm=updates)
    recipe["optimizer"] = {"learning_rate": 0.003, "schedule": "linear"}
    run_loop(recipe, tmp_path / "short")
    assert len(metrics(tmp_path / "short")) == 1 and (tmp_path / "short/checkpoints/step_000001").is_dir()
    assert totals == [2] * 2
    totals.clear()
    run_loop({**recipe, "run": {**recipe["run"], "minutes": None}}, tmp_path / "whole")
    assert totals == [24] * 24
    totals.clear()
    monkeypatch.setattr(Pace, "steps", property(lambda self: 5))
    run_loop(recipe, tmp_path / "told")
    assert totals == [10] * 10


def test_no_step_starts_that_would_end_after_the_limit(clock):
    kept = Pace(RunConfig(steps=100, minutes=1), 0, 0.0)
    assert kept.steps == 100
    assert walk(kept, clock, [50.0]) == [1]  # 10 seconds are left for one of 50
    kept = Pace(RunConfig(steps=100, minutes=1), 0, 0.0)
    assert walk(kept, clock, [28.0, 1.0, 9.0, 9.0, 9.0]) == [100, 100, 100, 100, 5]  # the first is no measure


def test_what_comes_before_the_first_step_is_no_part_of_it(clock):
    kept = Pace(RunConfig(steps=100, minutes=1), 0, 0.0)
    clock.now += 40.0
    kept.start()
    assert walk(kept, clock, [5.0]) == [100] and kept.seconds == 45.0


def test_a_run_whose_last_step_the_clock_decides_saves_it(tiny_checkpoint, tmp_path, monkeypatch):
    """The clock is read once a step: were it read again, time that ran out between two readings left a step unsaved."""
    told = iter([9, 9, 9, 9, *[1] * 50])
    monkeypatch.setattr(Pace, "steps", property(lambda self: next(told)))
    run_loop(mapping(tiny_checkpoint, run={"steps": 9, "minutes": 1.0}), tmp_path)
    done = len(metrics(tmp_path))
    assert (tmp_path / f"checkpoints/step_{done:06d}").is_dir()
