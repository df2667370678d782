"""A reward for images of coloured cells."""

from __future__ import annotations

from typing import Any

import numpy as np

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255)}


def share_of_named_colour(prompts: list[Any], completions: list[Any], **columns: list[Any]) -> list[float]:
    """The share of an image's pixels that have the colour of its prompt."""
    images = [np.asarray(completion[-1]["content"][0]["image"]) for completion in completions]
    wanted = [COLOURS[name] for name in columns["prompt"]]
    return [float((image == colour).all(axis=-1).mean()) for image, colour in zip(images, wanted, strict=True)]
