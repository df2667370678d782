"""Rewards without a model: how well a generated image compresses."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from motet.rewards.base import reward
from motet.rewards.image.pixels import last_image
from motet.rewards.info import RewardInfo


@reward("jpeg_incompressibility", info=RewardInfo(range="kilobytes, above 0"))
def jpeg_incompressibility(completions: list[Any]) -> list[float | None]:
    """Kilobytes of the generated image as a JPEG of quality 95: bytes / 1000.

    Black et al. 2023 (DDPO, arXiv 2305.13301); UniRL-Zero's code. The size depends on the JPEG library a little.
    """
    return [kilobytes(last_image(c, "jpeg_incompressibility")) if c else None for c in completions]


@reward("jpeg_compressibility", info=RewardInfo(range="below 0"))
def jpeg_compressibility(completions: list[Any]) -> list[float | None]:
    """Minus the kilobytes of the generated image as a JPEG of quality 95, / 500: 0 is the best; UniRL-Zero's code."""
    return [-kilobytes(last_image(c, "jpeg_compressibility")) / 500 if c else None for c in completions]


def kilobytes(image: Image.Image) -> float:
    """Size of the image as a JPEG of quality 95, in thousands of bytes."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=95)
    return len(buffer.getvalue()) / 1000
