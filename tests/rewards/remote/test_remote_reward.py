"""The reward `remote`: the same values as in the process, and never a number for a failure."""

from __future__ import annotations

import time
from typing import Any

import pytest

from motet.config.schema import RewardConfig
from motet.core.errors import ConfigError, RewardError
from motet.rewards import StepLog, resolve, score_groups
from motet.rewards.remote import client
from motet.scenarios import generate_and_answer
from tests.rewards.remote.stub import Stub, serve
from tests.rewards.test_scoring import roll

ACTS = {"image": "image", "answer": "text"}
COLUMNS = ("prompt", "question")


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch):
    monkeypatch.setattr(client, "BACKOFF", 0.001)


def by_pixels(completions, question, **_):
    """The sum of the image's upper left pixel, and the number of the question."""
    images = [completion[0]["content"][0]["image"] for completion in completions]
    return [float(sum(im.getpixel((0, 0)))) + int(q[1:]) / 10 for im, q in zip(images, question, strict=True)]


def score(url, on_failure: Any = "raise", log=None, rows=3, **options):
    """Values of three groups of two, and why generations were dropped."""
    options = {"url": url, "reward": "stub", "chunk_size": 4, "timeout": 5.0, **options}
    config = RewardConfig.model_validate({"name": "remote", "options": options, "on_failure": on_failure})
    reward = resolve(config, ACTS, COLUMNS)
    scores = score_groups(roll(generate_and_answer, rows=rows), [reward], log)
    values = [value for one in scores for value in one.values["remote"]]
    return values, {(p, g): f.message for p, one in enumerate(scores) for g, f in one.dropped.items()}


def in_process():
    config = RewardConfig(name="tests/rewards/remote/test_remote_reward.py:by_pixels")
    scores = score_groups(roll(generate_and_answer, rows=3), [resolve(config, ACTS, COLUMNS)])
    return [value for one in scores for value in one.values["by_pixels"]]


@pytest.mark.parametrize("image_format", ["png", "webp-lossless"])
def test_the_values_are_those_of_the_process(image_format):
    stub, log = Stub(by_pixels, ("question",)), StepLog()
    with serve(stub) as url:
        values, dropped = score(url, log=log, image_format=image_format)
    assert values == in_process() and not dropped
    assert sorted(len(request["completions"]) for request in stub.requests) == [2, 4]
    assert log.metrics == {"remote/size": 3.0} and log.extra["remote"]["n"] == values


def test_what_fails_for_now_is_asked_for_again():
    stub = Stub(by_pixels)
    stub.faults = [503, "cut", 429, 500, "{}", '{"values": [NaN, 1, 1, 1], "errors": [null, null, null, null]}']
    stub.faults += [
        '{"values": [1.0], "errors": [null]}',
        '{"values": ["1", 1, 1, 1], "errors": [null, null, null, null]}',
    ]
    with serve(stub) as url:
        values, dropped = score(url, concurrency=1, retries=9)
    assert values == in_process() and not dropped and len(stub.tokens) == 10


def test_another_server_takes_over():
    stub = Stub(by_pixels)
    with serve(Stub(by_pixels)) as gone:
        pass
    with serve(stub) as url:
        config = {"url": [url, gone], "retries": 1}
        client_of = client.ServiceClient(config["url"], "stub", retries=1)
        body = {"prompts": [[]], "completions": [[]], "columns": {}}
        stub.function = lambda **_: [1.5]
        assert [client_of.score(body, 1, first).values for first in (0, 1)] == [[1.5], [1.5]]


def test_a_server_that_is_gone_ends_the_run_or_is_an_error_of_every_completion():
    stub = Stub(by_pixels)
    with serve(stub) as url:
        stub.faults = [503] * 3
        with pytest.raises(
            RewardError, match=r"4 of 6 completions; .*did not answer in 3 attempts; the last: .* 503: "
        ):
            score(url, retries=2, concurrency=1)
        stub.faults = [503] * 3
        values, dropped = score(url, "drop", retries=2, concurrency=1)
        stub.faults = [503] * 6
        with pytest.raises(RewardError, match="could not score 6 of 6"):
            score(url, "drop", retries=2)
    assert values == [None] * 4 + in_process()[4:] and len(dropped) == 4


def test_an_error_of_one_completion_concerns_that_one_only():
    def one_fails(completions, **_):
        return ["no face found" if n == 1 else float(n) for n in range(len(completions))]

    with serve(Stub(one_fails)) as url:
        values, dropped = score(url, "drop")
        with pytest.raises(RewardError, match=r"2 of 6 completions; the first of them: no face found"):
            score(url)
    assert values == [0.0, None, 2.0, 3.0, 0.0, None] and set(dropped.values()) == {"no face found"}


def test_a_retry_of_the_policy_asks_for_what_is_missing_only():
    def once(completions, **_):
        return ["busy" if len(stub.requests) == 1 else 1.0 for _ in completions]

    stub = Stub(once)
    with serve(stub) as url:
        assert score(url, {"name": "retry", "retries": 1}, concurrency=1)[0] == [1.0] * 6
    assert [len(request["completions"]) for request in stub.requests] == [4, 2, 4]


def test_a_request_that_hangs_or_is_rejected_is_divided_until_the_cause_is_alone():
    def fast(completions, question, **_):
        if "q1" in question:
            stub.hold.wait(20)
        return [1.0] * len(completions)

    stub = Stub(fast)
    with serve(stub) as url:
        began = time.monotonic()
        values, dropped = score(url, "drop", timeout=0.3)
    assert values == [1.0, 1.0, None, None, 1.0, 1.0] and time.monotonic() - began < 10
    assert all("took too long" in reason and "within 0.3 s" in reason for reason in dropped.values())

    stub = Stub(lambda completions, **_: [1.0] * len(completions))
    stub.faults = [413, 413, None, 413]  # of 4, of the first 2, none, of the first
    with serve(stub) as url:
        values, dropped = score(url, "drop", concurrency=1)
    assert values == [None, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert all("answered 413: it is a test" in reason for reason in dropped.values())


def test_the_token_comes_from_the_environment(monkeypatch):
    stub = Stub(by_pixels)
    with serve(stub) as url:
        with pytest.raises(ConfigError, match="token_variable='SERVICE_TOKEN' of 'remote' is not set"):
            score(url, token_variable="SERVICE_TOKEN")
        monkeypatch.setenv("SERVICE_TOKEN", "secret")
        score(url, token_variable="SERVICE_TOKEN")
    assert stub.tokens == ["Bearer secret"] * 2


def test_what_cannot_work_is_said_before_the_first_step():
    stub = Stub(by_pixels, ("mask",))
    with serve(stub) as url:
        with pytest.raises(RewardError, match="Reward 'remote' needs column 'mask'"):
            score(url)
        with pytest.raises(ConfigError, match=r"'stubb' of 'remote' is not served by .*; it has: stub. Did you mean"):
            score(url, reward="stubb")
    with pytest.raises(RewardError, match="did not answer in 2 attempts"):
        score(url, retries=1)


def test_a_wrong_token_is_an_error_of_the_recipe_whatever_the_policy():
    stub = Stub(by_pixels)
    stub.faults = [401]
    with serve(stub) as url, pytest.raises(ConfigError, match=r"answered 401.*token_variable"):
        score(url, "drop", concurrency=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "rewards.options.url='localhost:8000' of 'remote' is not an http"),
        ({"url": []}, "is not an address or a list of them"),
        ({"url": "http://x", "chunk_size": 0}, "chunk_size=0"),
        ({"url": "http://x", "image_format": "jpeg"}, "must be one of png, webp-lossless"),
        ({"url": "http://x", "retries": -1}, "retries=-1"),
    ],
)
def test_options_are_checked(options, message):
    config = RewardConfig(name="remote", options={"reward": "stub", **options})
    with pytest.raises(ConfigError, match=message):
        resolve(config, ACTS, COLUMNS)
