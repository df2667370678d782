"""Image tensors of autoencoders: PIL <-> pixels in [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor


def to_pixels(images: Sequence[Image.Image], height: int, width: int) -> Float[Tensor, "B 3 H W"]:
    """Images of any size and mode as RGB in [-1, 1], float32: scaled (Lanczos) to cover the size, centre cut out.

    An image of the size's own proportions is scaled as diffusers' `VaeImageProcessor` does; others lose their edges
    instead of being stretched.
    """
    fitted = [ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.LANCZOS) for image in images]
    levels = np.stack([np.asarray(image, dtype=np.float32) for image in fitted]) / 255.0
    return torch.from_numpy(levels).permute(0, 3, 1, 2).contiguous() * 2 - 1


def to_pil_images(pixels: Float[Tensor, "B 3 H W"]) -> list[Image.Image]:
    """Pixels in [-1, 1], clamped and rounded to uint8, as diffusers' `VaeImageProcessor.postprocess` does."""
    levels = (pixels.float() * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(one) for one in (levels * 255).round().astype(np.uint8)]
