"""Pictures into and out of a Janus: PIL to codes, codes to decoded pixels to uint8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

try:
    from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil as ImageProcessor
except ImportError:  # transformers 5.0: there it is the default one
    from transformers.models.janus.image_processing_janus import (  # type: ignore[no-redef]
        JanusImageProcessor as ImageProcessor,
    )

__all__ = ["ImageProcessor", "codes_of", "decode_pictures", "to_pictures"]

PIXELS_AT_ONCE = 1 << 21
"""Pixels of one pass through the image tokenizer: 14 pictures of 384 x 384, whose activations are then a few GB."""


def to_pictures(decoded: Tensor) -> list[Image.Image]:
    """Decoded pixels `[B, 3, H, W]` in about [-1, 1] -> RGB pictures; the one place where they become uint8."""
    levels = decoded.float().add(1).mul(127.5).round().clamp(0, 255).byte()
    return [Image.fromarray(picture) for picture in levels.permute(0, 2, 3, 1).cpu().numpy()]


def decode_pictures(model: Any, ids: Tensor) -> list[Image.Image]:
    """Pictures of codebook indices `[B, N]`."""
    return [p for some in ids.split(_batch(model)) for p in to_pictures(model.model.vqmodel.decode(some))]


def codes_of(model: Any, processor: Any, pictures: Sequence[Image.Image]) -> Tensor:
    """Codebook indices `[B, N]` of pictures, cut to their middle square and resized to the model's own size first.

    Cut, for the processor would pad what is no square with grey bars, as understanding has it: a demonstration of
    those teaches to draw bars.

    The nearest code is the one of largest cosine, because decoding normalises codes and the image tokenizer was trained
    so (LlamaGen's l2_norm); transformers' `encode` compares unnormalised vectors and finds others.
    """
    vq = model.model.vqmodel
    codebook = F.normalize(vq.quantize.embedding.weight.float(), dim=-1)
    codes = []
    for start in range(0, len(pictures), _batch(model)):
        some = [_middle_square(picture.convert("RGB")) for picture in pictures[start : start + _batch(model)]]
        # The image tokenizer reads [-1, 1], whatever the vision tower of this checkpoint wants.
        pixels = processor.image_processor(
            images=some, do_normalize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3, return_tensors="pt"
        )["pixel_values"]
        latents = vq.quant_conv(vq.encoder(pixels.to(vq.device, vq.dtype))).float().flatten(2).transpose(1, 2)
        codes.append((latents @ codebook.T).argmax(dim=-1).cpu())
    return torch.cat(codes)


def _middle_square(picture: Image.Image) -> Image.Image:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _batch(model: Any) -> int:
    return max(1, PIXELS_AT_ONCE // model.config.vision_config.image_size**2)
