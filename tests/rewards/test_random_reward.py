"""The reward random: its rate, and that only what was generated decides it."""

import pytest
from PIL import Image

from motet.config.schema import RewardConfig
from motet.core.errors import ConfigError
from motet.rewards import resolve


def score(completions, **options):
    reward = resolve(RewardConfig(name="random", options=options), {"image": "image", "answer": "text"}, ())
    return reward(prompts=[[{"role": "user", "content": "a cat"}]] * len(completions), completions=completions)


def text(content):
    return [{"role": "assistant", "name": "answer", "content": content}]


def image(colour):
    part = {"type": "image", "image": Image.new("RGB", (4, 4), colour)}
    return [{"role": "assistant", "name": "image", "content": [part]}]


def test_the_rate_is_kept():
    values = score([text(str(n)) for n in range(1000)], rate=0.2)
    assert set(values) == {0.0, 1.0} and sum(values) == pytest.approx(200, abs=40)
    assert set(score([text(str(n)) for n in range(20)], rate=0)) == {0.0}


def test_equal_generations_get_equal_values_and_others_their_own():
    colours = [(n, 0, 0) for n in range(40)]
    values = score([image(colour) for colour in colours])
    assert values == score([image(colour) for colour in colours]) != score([image(c) for c in colours], seed=1)
    assert len(set(values)) == 2 and score([[], text("x")])[0] is None
    with pytest.raises(ConfigError, match="rate"):
        score([], rate=2)
