"""The reward edge_density, by hand."""

import pytest
from PIL import Image

from motet.config.schema import RewardConfig
from motet.core.errors import ConfigError
from motet.rewards import resolve


def score(images, **options):
    reward = resolve(RewardConfig(name="edge_density", options=options), {"image": "image"}, ())
    chats = [[{"role": "assistant", "name": "image", "content": [{"type": "image", "image": one}]}] for one in images]
    return reward(prompts=[[]] * len(images), completions=[*chats, []])


def test_edges_and_their_target():
    plain, half = Image.new("RGB", (8, 8), "white"), Image.new("RGB", (8, 8), "white")
    half.paste("black", (0, 0, 4, 8))
    assert score([plain, half], side=8) == [0.0, pytest.approx(2 / 6), None]  # two of the six inner columns
    assert score([plain, half], side=8, target=0.5) == [0.5, pytest.approx(1 - 1 / 6), None]
    with pytest.raises(ConfigError, match="target"):
        score([plain], target=2)
