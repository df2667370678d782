"""Images into and out of a Janus: PIL to codes, codes to decoded pixels to uint8."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from transformers.image_transforms import resize as np_resize
from transformers.image_utils import ChannelDimension
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil

__all__ = ["ImageProcessor", "decode_images", "encode_images", "reconstructed", "to_pil_images"]

PIXELS_AT_ONCE = 1 << 21
"""Pixels of one pass through the image tokenizer: 14 images of 384 x 384, whose activations are then a few GB."""
PIXELS_AT_ONCE_ON_CPU = 1 << 16
"""The same on a CPU, whose caches hold the activations of few images: 16 of 64 x 64, or one of 384 x 384."""


class ImageProcessor(JanusImageProcessorPil):
    """transformers' processor, which also knows how DeepSeek's rounds the shorter side of an image that is not square.

    `size_rounding` in preprocessor_config.json: "nearest" is transformers' way, "down" DeepSeek's, with which its
    checkpoints were trained: 500 x 333 pixels become 384 x 255 and not 384 x 256. Saved as the parent class.
    """

    size_rounding: str = "nearest"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.size_rounding not in ("nearest", "down"):
            raise ValueError(f"size_rounding={self.size_rounding!r} in preprocessor_config.json: write nearest or down")

    def resize(self, image: Any, size: Any, min_size: int, resample: Any = None, **options: Any) -> Any:
        """`[C, H, W]` -> the longer side as long as `size`, the shorter one in proportion, neither below `min_size`."""
        if self.size_rounding == "nearest":
            return super().resize(image, size, min_size, resample, **options)
        height, width = image.shape[-2:]
        rows, columns = (max(int(side / max(height, width) * size.height), min_size) for side in (height, width))
        return np_resize(
            image,
            size=(rows, columns),
            resample=resample or self.resample,
            data_format=ChannelDimension.FIRST,
            input_data_format=ChannelDimension.FIRST,
        )

    def to_dict(self) -> dict[str, Any]:
        """The settings under the name of transformers' class, which reads all but the rounding."""
        return {**super().to_dict(), "image_processor_type": JanusImageProcessorPil.__name__}


def to_pil_images(decoded: Tensor) -> list[Image.Image]:
    """Decoded pixels `[B, 3, H, W]` in about [-1, 1] -> RGB images; the one place where they become uint8."""
    levels = decoded.float().add(1).mul(127.5).round().clamp(0, 255).byte()
    return [Image.fromarray(image) for image in levels.permute(0, 2, 3, 1).cpu().numpy()]


def decode_images(model: Any, ids: Tensor) -> list[Image.Image]:
    """Images of codebook indices `[B, N]`."""
    return [p for some in ids.split(_batch(model)) for p in to_pil_images(model.model.vqmodel.decode(some))]


def reconstructed(model: Any, processor: Any, images: Sequence[Image.Image]) -> list[tuple[Image.Image, Image.Image]]:
    """Each image as input of the image tokenizer (cropped and resized), and its reconstruction."""
    starts = range(0, len(images), _batch(model))
    shown = [one for n in starts for one in to_pil_images(_pixels(processor, images[n : n + _batch(model)]))]
    codes = encode_images(model, processor, images).to(model.model.vqmodel.device)
    return list(zip(shown, decode_images(model, codes), strict=True))


def encode_images(model: Any, processor: Any, images: Sequence[Image.Image]) -> Tensor:
    """Codebook indices `[B, N]` of images, cropped to their middle square and resized to the model's own size first.

    Cropped, because the processor pads images that are not square with grey bars, as for understanding; as targets
    these would train the policy to generate bars.

    The nearest code is the one of largest cosine, because decoding normalises codes and the image tokenizer was trained
    so (LlamaGen's l2_norm); transformers' `encode` compares unnormalised vectors and finds others.
    """
    vq = model.model.vqmodel
    codebook = F.normalize(vq.quantize.embedding.weight.float(), dim=-1)
    codes = []
    for start in range(0, len(images), _batch(model)):
        pixels = _pixels(processor, images[start : start + _batch(model)])
        latents = vq.quant_conv(vq.encoder(pixels.to(vq.device, vq.dtype))).float().flatten(2).transpose(1, 2)
        codes.append((latents @ codebook.T).argmax(dim=-1).cpu())
    return torch.cat(codes)


def _pixels(processor: Any, images: Sequence[Image.Image]) -> Tensor:
    """`[B, 3, H, W]` in [-1, 1], as the image tokenizer reads them, whatever the vision tower wants."""
    cut = [_middle_square(image.convert("RGB")) for image in images]
    return processor.image_processor(
        images=cut, do_normalize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3, return_tensors="pt"
    )["pixel_values"]


def _middle_square(image: Image.Image) -> Image.Image:
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _batch(model: Any) -> int:
    """Images of one pass through the image tokenizer."""
    pixels = PIXELS_AT_ONCE_ON_CPU if model.model.vqmodel.device.type == "cpu" else PIXELS_AT_ONCE
    return max(1, pixels // model.config.vision_config.image_size**2)
