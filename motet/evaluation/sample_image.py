"""A generated image of a suite, for the grids before and after training."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class SampleImage:
    """A generated image with its prompt, and whether it is correct (suite `rewards`: first reward at least 1)."""

    prompt: str
    image: Image.Image
    correct: bool
