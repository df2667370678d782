"""The reward of images in the manner of easy-VQA: does the image show the requested shape in the requested colour?"""

from __future__ import annotations

from typing import Any

from motet.rewards.base import reward
from motet.rewards.image.pixels import scatter_scores, scorable_images
from motet.rewards.info import BINARY, RewardInfo
from motet.shapes.easy_vqa import find_shape


@reward("easy_vqa", info=RewardInfo(range=BINARY))
def easy_vqa(
    completions: list[Any], colour: list[str | None], shape: list[str | None], **columns: Any
) -> list[float | None]:
    """Whether the last image shows one `shape` in one `colour` on a pale background and nothing else: 1 or 0.

    By the verifier of `motet.shapes.easy_vqa`. A row without a colour or a shape gets None.
    """
    applies = [None not in pair for pair in zip(colour, shape, strict=True)]
    places, images = scorable_images(completions, applies, "easy_vqa")
    found = [find_shape(image) for image in images]
    values = [float((f.colour, f.shape) == (colour[n], shape[n])) for n, f in zip(places, found, strict=True)]
    return scatter_scores(len(completions), places, values)
