"""What becomes of a reward that fails: an error, dropped trajectories or another call; never a number."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from motet.config import parse_recipe
from motet.config.choice import Choice
from motet.core.errors import ConfigError, RewardError
from motet.rewards import StepLog, failures, score_groups
from motet.rewards.failures import FailurePolicy, Unscored
from tests.rewards.test_scoring import bind, roll

DROP = FailurePolicy(drop=True)


@pytest.fixture(autouse=True)
def _no_waits(monkeypatch):
    monkeypatch.setattr(failures, "BACKOFF", 0.0)


def score(function, policy, rows=4, accepts=None, log=None):
    """Values and reasons of 2 generations for each row; the reward sees the row's question."""
    reward = replace(bind(function, accepts=accepts), failure=policy)
    scores = score_groups(roll(rows=rows), [reward], log)
    values = [value for one in scores for value in one.values["r"]]
    return values, {(p, g): f.message for p, one in enumerate(scores) for g, f in one.dropped.items()}


def fails_on(*bad):
    """A reward that raises whenever one of these questions is among those that it is asked for; it counts its calls."""

    def reward(question, **_):
        reward.calls += 1
        if set(question) & set(bad):
            raise ValueError(f"cannot score {sorted(set(question) & set(bad))[0]}")
        return [float(one[1:]) for one in question]

    reward.calls = 0
    return reward


def test_drop_finds_the_completions_that_make_a_call_fail():
    function = fails_on("q2")
    values, dropped = score(function, DROP)
    assert values == [0.0, 0.0, 1.0, 1.0, None, None, 3.0, 3.0]
    line = function.__code__.co_firstlineno + 3
    said = f"Reward 'r' raised ValueError: cannot score q2 at test_failures.py:{line} (called with 1 completions)."
    assert dropped == {(2, 0): said, (2, 1): said}
    assert function.calls == 7  # 8; 4 4; 2 2; 1 1


def test_what_is_not_called_again_alone_is_dropped_with_its_part():
    hold, calls = threading.Event(), []

    def hangs(question, **_):
        calls.append(len(question))
        hold.wait(5)
        return [1.0] * len(question)

    with pytest.raises(RewardError, match=r"could not score 8 of 8 completions; .* longer than its timeout"):
        score(hangs, replace(DROP, timeout=0.02))
    hold.set()
    assert len(calls) == 1 + 8  # 2 + 2 log2(8)


def test_a_completion_that_the_reward_reports_as_unscored_is_dropped():
    def one_unscored(question, **_):
        return [Unscored("no face found.") if n == 1 else 1.0 for n in range(len(question))]

    values, dropped = score(one_unscored, DROP)
    assert values[1] is None and values.count(1.0) == 7 and dropped == {(0, 1): "no face found."}
    with pytest.raises(RewardError, match=r"'r' could not score 1 of 8 completions; the first of them: no face found"):
        score(one_unscored, FailurePolicy())


def test_an_unscored_generation_does_not_drop_those_for_which_the_reward_does_not_apply():
    values, dropped = score(lambda **_: [Unscored("lost."), None, 1.0, 2.0], DROP, rows=2)
    assert values == [None, None, 1.0, 2.0] and dropped == {(0, 0): "lost."}


def test_nothing_scored_at_all_is_an_error_even_where_failures_are_dropped():
    for function in (fails_on("q0", "q1"), lambda question, **_: [Unscored("the server is away.")] * len(question)):
        with pytest.raises(RewardError, match="could not score 4 of 4 completions"):
            score(function, DROP, rows=2)


def test_retry_calls_again_for_what_has_no_value_only():
    asked = []

    def second_time(question, **_):
        asked.append(list(question))
        return [Unscored("busy.") if len(asked) == 1 and one == "q1" else float(one[1:]) for one in question]

    values, dropped = score(second_time, FailurePolicy(retries=2), rows=3)
    assert values == [0.0, 0.0, 1.0, 1.0, 2.0, 2.0] and not dropped
    assert asked[1:] == [["q1", "q1"]]


def test_retries_are_bounded_and_end_as_the_policy_says():
    function = fails_on("q1")
    with pytest.raises(RewardError, match="raised ValueError: cannot score q1"):
        score(function, FailurePolicy(retries=3))
    assert function.calls == 4
    values, dropped = score(fails_on("q1"), FailurePolicy(retries=1, drop=True))
    assert values == [0.0, 0.0, None, None, 2.0, 2.0, 3.0, 3.0] and set(dropped) == {(1, 0), (1, 1)}


def test_an_async_reward_is_called_again_too():
    calls = []

    async def second_time(question, **_):
        calls.append(len(question))
        if len(calls) == 1:
            raise ConnectionError("reset")
        return [1.0] * len(question)

    assert score(second_time, FailurePolicy(retries=1))[0] == [1.0] * 8 and calls == [8, 8]


def test_a_malformed_return_value_is_a_failure_like_any_other():
    answers = iter([[1.0], ["x"] * 8, [2.0] * 8])
    assert score(lambda **_: next(answers), FailurePolicy(retries=2))[0] == [2.0] * 8


def test_what_a_failed_call_logged_does_not_count():
    def logs(question, log_metric, log_extra):
        log_metric("calls", 1.0)
        log_extra("question", question)
        if "q1" in question:
            raise ValueError("no")
        return [1.0] * len(question)

    log = StepLog()
    values, _ = score(logs, DROP, accepts=frozenset({"question", "log_metric", "log_extra"}), log=log)
    assert values == [1.0, 1.0, None, None, 1.0, 1.0, 1.0, 1.0]
    assert log.extra["r"]["question"] == ["q0", "q0", None, None, "q2", "q2", "q3", "q3"]
    assert log.metrics == {"r/calls": 1.0} and len(log.values["r/calls"]) == 2  # q0 q0; q2 q2 q3 q3


def test_an_error_of_the_recipe_is_never_dropped():
    def complains(**_):
        raise ConfigError("rewards.options.path does not exist.", fix="correct it.")

    with pytest.raises(ConfigError):
        score(complains, FailurePolicy(retries=3, drop=True))


def test_the_policy_of_a_recipe():
    assert FailurePolicy.of(Choice.of("raise")) == FailurePolicy()
    assert FailurePolicy.of(Choice.of("drop", timeout=3)) == FailurePolicy(timeout=3.0, drop=True)
    assert FailurePolicy.of(Choice.of("retry", then="drop")) == FailurePolicy(retries=2, drop=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"on_failure": "skip"}, r"rewards\.0\.on_failure: 'skip' does not fit; expected one of raise, drop, retry"),
        ({"on_failure": {"name": "drop", "retries": 2}}, r"rewards\.0\.on_failure\.retries"),
        ({"on_failure": {"name": "raise", "timeout": 0}}, r"rewards\.0\.on_failure\.timeout: 0 does not fit"),
        ({"timeout": 60}, r"rewards\.0\.timeout: was renamed to rewards\.0\.on_failure\.timeout"),
    ],
)
def test_a_policy_that_does_not_exist_is_rejected(given, message):
    content = {"policy": {"path": "p"}, "run": {"steps": 1}, "rewards": [{"name": "format", **given}]}
    with pytest.raises(ConfigError, match=message):
        parse_recipe(content)
