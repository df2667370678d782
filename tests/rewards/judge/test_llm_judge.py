"""A judge's number: asked over HTTP, read off the reply."""

import math
import time

import pytest

from motet.config import RewardConfig
from motet.core.errors import ConfigError, RewardError
from motet.rewards import resolve
from tests.rewards.judges import chat_server, image, shows

ACTS = {"image": "image"}


@pytest.fixture
def server():
    with chat_server() as running:
        yield running


def bound(server, **options):
    endpoint = {"base_url": "http://x/v1" if server is None else server.url, "model": "judge", "retries": 0}
    columns = ("prompt", "instruction", "images")
    return resolve(RewardConfig(name="judged", options={"endpoint": endpoint, **options}), ACTS, columns)


def parts(server):
    return [body["messages"][0]["content"] for _, body in server.seen]


def test_the_last_number_over_the_scale(server):
    replies = {"a": "Final Score: 2, no.\nFinal Score: **4.5**", "b": "it is fine", "c": 500, "d": "Final Score: 1"}
    server.reply = lambda body: replies[body["messages"][0]["content"][-1]["text"][-1]]
    values = bound(server)(completions=shows(*[image()] * 4), prompt=["a", "b", "c", "d"])
    assert values[0] == 0.9 and values[3] == 0.2 and all(math.isnan(value) for value in values[1:3])


def test_a_number_beyond_the_scale_is_nan(server):
    replies = {"a": "Final Score: 5", "b": "Final Score: 8", "c": "Final Score: 5.5", "d": "Final Score: **0**"}
    server.reply = lambda body: replies[body["messages"][0]["content"][-1]["text"][-1]]
    values = bound(server)(completions=shows(*[image()] * 4), prompt=["a", "b", "c", "d"])
    assert values[0] == 1.0 and values[3] == 0.0 and all(math.isnan(value) for value in values[1:3])


def test_scores_beyond_the_scale_raise(server):
    server.reply = lambda body: "Final Score: 8"
    with pytest.raises(RewardError, match=r"got 8; all 2 scores are beyond its scale 5") as caught:
        bound(server)(completions=shows(*[image()] * 2), prompt=["a", "b"])
    assert "rewards.options.scale" in caught.value.fix


def test_one_odd_number_is_not_another_scale(server):
    server.reply = lambda body: "Final Score: 8"
    (value,) = bound(server)(completions=shows(image()), prompt=["a"])
    assert math.isnan(value)


def test_spaces_without_a_number_take_no_time(server):
    server.reply = lambda body: "Final Score:" + " " * 200_000 + "none"
    began = time.monotonic()
    (value,) = bound(server)(completions=shows(image()), prompt=["a"])
    assert math.isnan(value) and time.monotonic() - began < 5


def test_the_source_is_shown_first_and_columns_are_filled_in(server):
    server.reply = lambda body: "10"
    reward = bound(server, question="do {instruction}; not {instruction}!", pattern="([0-9]+)", scale=20, source=True)
    told = reward(
        completions=shows(image("red"), image("blue")),
        instruction=["cut {prompt}", None],
        images=[[image("green")]] * 2,
    )
    assert told == [0.5, None]
    ((source, drawing, asked),) = parts(server)
    assert asked["text"] == "do cut {prompt}; not cut {prompt}!"
    assert source["type"] == drawing["type"] == "image_url" and source != drawing


def test_a_completion_without_the_act_is_not_asked_about(server):
    assert bound(server, act="image")(completions=[[], *shows(image())], prompt=["a", None]) == [None, None]
    assert server.seen == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "[0-9]+"}, "has no group"),
        ({"pattern": "([0-9"}, "pattern of 'judged' is not a regular"),
        ({"scale": 0}, "scale=0 of 'judged' must be a number"),
        ({"source": 1}, "source=1 of 'judged' must be true or false"),
        ({"endpoint": {"model": "x"}}, "endpoint.base_url"),
        ({"act": "edit"}, "name the act 'edit'"),
    ],
)
def test_wrong_options_raise(options, message):
    with pytest.raises(ConfigError, match=message):
        bound(None, **options)
