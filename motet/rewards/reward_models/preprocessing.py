"""Images as the pixels that CLIP and its descendants are given, without torchvision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and standard deviation of the colours that OpenAI's CLIP, and so its descendants, are given."""


def padded_pixels(images: Sequence[Image.Image], side: int, **_: Any) -> dict[str, Float[Tensor, "B 3 S S"]]:
    """An image processor: the longer side gets `side` pixels (bicubic, antialiased), the rest is black."""
    batch = torch.zeros(len(images), 3, side, side)
    for canvas, image in zip(batch, images, strict=True):
        pixels = _levels(image.convert("RGB"))
        rows, columns = pixels.shape[1:]
        height, width = (max(1, round(length * side / max(rows, columns))) for length in (rows, columns))
        if (height, width) != (rows, columns):
            size = (height, width)
            pixels = F.interpolate(pixels[None], size=size, mode="bicubic", antialias=True, align_corners=False)[0]
        top, left = (side - height) // 2, (side - width) // 2
        canvas[:, top : top + height, left : left + width] = pixels
    return {"pixel_values": _normalize(batch)}


def cropped_pixels(images: Sequence[Image.Image], side: int) -> Float[Tensor, "B 3 S S"]:
    """The shorter side gets `side` pixels (Pillow's bicubic), the longer one is cropped around the centre."""
    batch = []
    for image in images:
        scale = side / min(image.size)
        width, height = (max(side, int(length * scale)) for length in image.size)
        rgb = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        left, top = round((width - side) / 2), round((height - side) / 2)
        batch.append(_levels(rgb.crop((left, top, left + side, top + side))))
    return _normalize(torch.stack(batch))


def _levels(image: Image.Image) -> Float[Tensor, "3 H W"]:
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)
    return pixels.permute(2, 0, 1).float() / 255


def _normalize(pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std
