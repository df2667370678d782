"""A reward in a worker process: the same values, and a hang or a death of the process is a failure like any other."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from motet.config.schema import RewardConfig
from motet.core.errors import ConfigError, RewardError
from motet.rewards import StepLog, bind_policy, failures, resolve, score_groups
from motet.rewards.no_policy import NoPolicy
from motet.scenarios import generate_and_answer
from tests.rewards.test_scoring import roll

HERE = "tests/rewards/test_process.py:"
ACTS = {"image": "image", "answer": "text"}


def logs(completions, question, trainer_state, log_metric, log_extra, bonus=0.0):
    print("a reward may print")
    images = [completion[0]["content"][0]["image"] for completion in completions]
    log_metric("step", trainer_state.global_step)
    log_extra("question", question)
    return [sum(im.getpixel((0, 0))) + int(q[1:]) + bonus for im, q in zip(images, question, strict=True)]


def dies(question, marker, **_):
    """Ends its process, the first time only."""
    if not Path(marker).exists():
        Path(marker).touch()
        os._exit(3)
    return [float(one[1:]) for one in question]


def hangs(question, **_):
    if "q1" in question:
        time.sleep(60)
    return [float(one[1:]) for one in question]


def score(name, on_failure: Any, log=None, rows=3, **options):
    config = RewardConfig.model_validate({"name": HERE + name, "options": options, "on_failure": on_failure})
    (bound,) = bind_policy([resolve(config, ACTS, ("prompt", "question"))], NoPolicy())  # type: ignore[list-item]
    scores = score_groups(roll(generate_and_answer, rows=rows), [bound], log)
    values = [value for one in scores for value in one.values[name]]
    return values, {f.message for one in scores for f in one.dropped.values()}


def test_values_and_logs_are_those_of_the_process_itself(capfd):
    here, there = StepLog(3, 9, 0.5), StepLog(3, 9, 0.5)
    expected = score("logs", "raise", here, bonus=0.5)
    assert score("logs", {"name": "raise", "process": True, "timeout": 60}, there, bonus=0.5) == expected
    assert (there.values, there.extra) == (here.values, here.extra) and here.metrics == {"logs/step": 3.0}
    assert "a reward may print" in capfd.readouterr().err


@pytest.mark.slow
def test_a_process_that_dies_is_an_error_or_is_started_again(tmp_path, monkeypatch):
    with pytest.raises(RewardError, match="The process of reward 'dies' ended with status 3 during a call"):
        score("dies", {"name": "raise", "process": True}, marker=str(tmp_path / "first"))
    monkeypatch.setattr(failures, "BACKOFF", 0.0)
    retry = {"name": "retry", "process": True, "retries": 1}
    assert score("dies", retry, marker=str(tmp_path / "second")) == ([0.0, 0.0, 1.0, 1.0, 2.0, 2.0], set())


def test_a_process_that_hangs_is_killed():
    began = time.monotonic()
    with pytest.raises(RewardError, match=r"'hangs' took longer than its timeout of 0.3 s"):
        score("hangs", {"name": "raise", "process": True, "timeout": 0.3})
    assert time.monotonic() - began < 40


def test_rewards_that_cannot_be_in_another_process_are_rejected():
    for name in ("python:f", "cycle"):
        options = {} if name != "cycle" else {"vqa_model": "policy"}
        config = RewardConfig.model_validate(
            {"name": name, "options": options, "on_failure": {"name": "raise", "process": True}}
        )
        with pytest.raises(ConfigError):
            resolve(config, ACTS, ("prompt", "question"))
