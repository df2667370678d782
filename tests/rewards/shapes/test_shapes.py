"""The shapes reward, against a checker that is put in its place, and against the real one."""

import sys
from dataclasses import dataclass

import pytest
from PIL import Image

from motet.config import RewardConfig
from motet.core.errors import ConfigError, RewardError
from motet.rewards import resolve
from motet.rewards.shapes.shapes import Shapes
from motet.shapes.world import ShapesRows


@dataclass
class VerifierResult:
    correct: bool
    partial: float


def drawn(*colours):
    return [
        {"role": "assistant", "content": [{"type": "image", "image": Image.new("RGB", (2, 2), c)}]} for c in colours
    ]


@pytest.fixture
def checker(monkeypatch):
    """Correct when the image is of the colour that the spec names; half right otherwise."""

    def check(images, specs):
        right = [image.getpixel((0, 0)) == spec["colour"] for image, spec in zip(images, specs, strict=True)]
        return [VerifierResult(one, 1.0 if one else 0.5) for one in right]

    monkeypatch.setattr(sys.modules[Shapes.__module__], "verify_images", check)


RED, BLUE = (255, 0, 0), (0, 0, 255)


def test_the_last_image_is_scored(checker):
    spec = {"colour": RED}
    assert Shapes()([drawn(RED), drawn(RED, BLUE)], [spec, spec]) == [1.0, 0.0]


def test_partial_mixes(checker):
    spec = [{"colour": RED}] * 2
    assert Shapes(partial=0.4)([drawn(RED), drawn(BLUE)], spec) == pytest.approx([1.0, 0.2])


def test_rows_without_a_spec_or_an_image_get_none(checker):
    assert Shapes()([drawn(RED), []], [None, {"colour": RED}]) == [None, None]


def test_text_alone_raises(checker):
    with pytest.raises(RewardError, match="without an image"):
        Shapes()([[{"role": "assistant", "content": "red"}]], [{"colour": RED}])


@pytest.mark.parametrize("partial", [-0.1, 1.5, True, "much"])
def test_partial_out_of_range_raises(partial):
    with pytest.raises(ConfigError, match="partial"):
        resolve(RewardConfig(name="shapes", options={"partial": partial}), {"image": "image"}, ["spec"])


def test_a_recipe_may_ask_for_a_share_of_the_partial_score(checker):
    half = resolve(RewardConfig(name="shapes", options={"partial": 0.5}), {"image": "image"}, ["spec"])
    assert half(prompts=[[]], completions=[drawn(BLUE)], spec=[{"colour": RED}]) == [0.25]


def test_the_real_checker_accepts_demonstrations_only():
    world = ShapesRows("train", 0, {}, 4)
    rows = [world.row(i) for i in range(4)]
    reward = resolve(RewardConfig(name="shapes"), {"image": "image"}, list(rows[0]))
    specs = [row["spec"] for row in rows] * 2
    images = [row["target"] for row in rows] + [Image.new("RGB", (32, 32), "white")] * 4
    completions = [[{"role": "assistant", "content": [{"type": "image", "image": p}]}] for p in images]
    assert reward(prompts=[[]] * 8, completions=completions, spec=specs) == [1.0] * 4 + [0.0] * 4
