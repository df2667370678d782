"""The reward `remote` with a real server: what it returns is what the reward in the process returns."""

import asyncio

import pytest
from PIL import Image

from motet.rewards.failures import Unscored
from motet.rewards.image.jpeg import jpeg_compressibility
from motet.rewards.remote.remote_reward import RemoteReward
from tests.serving.service import config, serving, text


def call(remote, completions, **columns):
    def ignore(*_):
        return None

    arguments = {"prompts": [text("?")] * len(completions), "log_metric": ignore, "log_extra": ignore}
    return asyncio.run(remote(completions=completions, **arguments, **columns))


@pytest.mark.parametrize("image_format", ["png", "webp-lossless"])
def test_values_are_equal_to_those_in_the_process(image_format) -> None:
    images = [Image.effect_noise((24, 16), 20 * n + 1).convert("RGB") for n in range(6)]
    chats = [[{"role": "assistant", "content": [{"type": "image", "image": image}]}] for image in images]
    with serving(config({"name": "jpeg_compressibility"})) as url:
        remote = RemoteReward(url=url, reward="jpeg_compressibility", chunk_size=2, image_format=image_format)
        values = call(remote, chats, answer=["not sent"] * 6)
    assert values == jpeg_compressibility(chats)


def test_failures_are_unscored_and_never_numbers() -> None:
    said = ["one", "raise", "nan", "none", "three"]
    with serving(config({"name": "tests.serving.served_rewards:by_text"})) as url:
        values = call(RemoteReward(url=url, reward="by_text"), [text(one) for one in said])
    assert [values[0], values[3], values[4]] == [3.0, None, 5.0]
    assert isinstance(values[1], Unscored) and "ValueError: it says so" in values[1].reason
    assert isinstance(values[2], Unscored) and "returned nan" in values[2].reason
