"""Pictures into and out of a Janus: PIL to pixels, decoded pixels to uint8."""

from __future__ import annotations

from PIL import Image
from torch import Tensor


def to_pictures(decoded: Tensor) -> list[Image.Image]:
    """Decoded pixels `[B, 3, H, W]` in about [-1, 1] -> RGB pictures; the one place where they become uint8."""
    levels = decoded.float().add(1).mul(127.5).round().clamp(0, 255).byte()
    return [Image.fromarray(picture) for picture in levels.permute(0, 2, 3, 1).cpu().numpy()]
