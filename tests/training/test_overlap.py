"""Rewards that are computed while the policy samples and learns: a fixed schedule, and time that is not waited for."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from motet.core.errors import RewardError
from motet.training import background
from tests.distributed.fake_backend import FakeBackend
from tests.fake_rewards import reddish
from tests.runs import mapping, metrics, run_loop, run_remote

HERE = "tests/training/test_overlap.py:"
CORRECTED = {"algorithm": {"loss": {"name": "grpo", "rollout_is": "token"}}, "run": {"steps": 4}}
SLOW = 0.05
threads: set[str] = set()


def slow(completions: list[Any], **_: Any) -> list[float]:
    """`reddish`, after a while."""
    threads.add(threading.current_thread().name)
    time.sleep(SLOW)
    return reddish(completions)


def breaks_at_step_2(completions: list[Any], trainer_state: Any, **_: Any) -> list[float]:
    if trainer_state.global_step == 2:
        raise ValueError("the scorer is gone")
    return reddish(completions)


def recipe(checkpoint, name, **changes):
    return mapping(checkpoint, rewards=[{"name": f"{HERE}{name}"}], **CORRECTED | changes)


def test_the_schedule_is_that_of_rollouts_in_actors_also_after_a_resumption(tiny_checkpoint, tmp_path):
    own = mapping(tiny_checkpoint, **CORRECTED)
    run_remote(own, tmp_path / "actors", FakeBackend(), 1, max_staleness=1)
    run_loop(own, tmp_path / "undisturbed", max_staleness=1)
    run_loop(own, tmp_path / "stopped", stop_after=2, max_staleness=1)
    assert len(metrics(tmp_path / "stopped")) == 2
    run_loop(own, tmp_path / "stopped", max_staleness=1)
    expected = metrics(tmp_path / "undisturbed")
    assert [line["policy_version_lag"] for line in expected] == [0.0, 1.0, 1.0, 1.0]
    assert metrics(tmp_path / "stopped") == expected
    rewards = [line["reward"] for line in metrics(tmp_path / "actors")]  # equal up to rounding: other batches
    assert rewards == pytest.approx([line["reward"] for line in expected], abs=1e-4)


def test_a_slow_reward_is_not_waited_for(tiny_checkpoint, tmp_path):
    threads.clear()
    run_loop(recipe(tiny_checkpoint, "slow"), tmp_path / "run", max_staleness=1)
    lines = metrics(tmp_path / "run", timed=True)
    called, waited = (sum(line[key] for line in lines) for key in ("time/reward_calls", "time/rewards"))
    assert called >= len(lines) * SLOW and threads.isdisjoint({"MainThread"})
    assert waited <= 0.2 * called


def test_an_error_of_a_reward_in_the_background_ends_the_run_at_its_step(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(background, "CLOSING", 60.0)
    with pytest.raises(RewardError, match="raised ValueError: the scorer is gone"):
        run_loop(recipe(tiny_checkpoint, "breaks_at_step_2"), tmp_path / "run", max_staleness=1)
    assert len(metrics(tmp_path / "run")) == 2
    assert (tmp_path / "run/checkpoints/step_000002").is_dir()
