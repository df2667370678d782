"""The reward easy_vqa: colour and shape of the last image."""

import pytest
from PIL import Image, ImageDraw

from motet.core.errors import RewardError
from motet.rewards.shapes.easy_vqa import easy_vqa


def completion(colour):
    image = Image.new("RGB", (64, 64), (240, 240, 250))
    ImageDraw.Draw(image).rectangle((10, 20, 40, 50), fill=colour)
    return [{"role": "assistant", "name": "image", "content": [{"type": "image", "image": image}]}]


def test_colour_and_shape_must_both_be_right():
    completions = [completion("red"), completion("red"), completion("blue"), completion("red"), []]
    colours, shapes = ["red", "red", "red", None, "red"], ["rectangle", "circle", "rectangle", "rectangle", "rectangle"]
    assert easy_vqa(completions, colour=colours, shape=shapes) == [1.0, 0.0, 0.0, None, None]


def test_a_completion_without_an_image():
    with pytest.raises(RewardError, match="'easy_vqa' got a completion without an image"):
        easy_vqa([[{"role": "assistant", "content": "red"}]], colour=["red"], shape=["circle"])
