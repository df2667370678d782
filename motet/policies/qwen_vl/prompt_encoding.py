"""Conversation -> prompt of a Qwen-VL: token ids, patches of images, and their grids.

The checkpoint's own chat template decides the layout; see `motet.policies.generation.chat_template` on how texts
enter it.
"""

from __future__ import annotations

from typing import Any

from PIL import Image
from torch import Tensor

from motet.core.errors import CheckpointError, DataError
from motet.core.registry import first_line
from motet.policies.generation.chat_template import ChatTemplateEncoder


class VlmEncoder(ChatTemplateEncoder):
    """Encodes conversations for one checkpoint.

    `processor` holds the tokenizer and the image processor (`motet.policies.qwen_vl.checkpoint.VlmProcessor`),
    `config` is the model's. Raises CheckpointError where the two do not belong together.
    """

    def __init__(self, processor: Any, config: Any) -> None:
        tokenizer = processor.tokenizer
        limit = config.text_config.max_position_embeddings
        super().__init__(tokenizer, tokenizer, limit, family="Qwen-VL", template=tokenizer.chat_template)
        self.image_processor = processor.image_processor
        self.eos_id = self._id("eos_token", tokenizer.eos_token)
        self.image_token = getattr(tokenizer, "image_token", None) or "<|image_pad|>"
        self.image_id = self._id("image_token", self.image_token)
        _require_agreement(self, config)
        named = (config.vision_start_token_id, config.vision_end_token_id, config.video_token_id)
        around = [tokenizer.convert_ids_to_tokens(number) for number in named]
        given = [self.image_token, tokenizer.eos_token, tokenizer.pad_token, *around]
        self._set_control_tokens([token for token in given if token])

    def _encode_images(self, images: list[Image.Image]) -> tuple[Tensor | None, Tensor | None, list[list[int]]]:
        """Patches of all images, one after another, their grids, and the image token once per merged patch."""
        if not images:
            return None, None, []
        converted = [image.convert("RGB") for image in images]
        try:
            found = self.image_processor(images=converted, return_tensors="pt")
        except ValueError as error:  # a strip more than 200 times as long as wide
            sizes = ", ".join(f"{image.width} x {image.height}" for image in images)
            raise DataError(
                f"The image processor rejects an image among {sizes}: {first_line(error)}.",
                fix="crop the image, or leave its row out.",
            ) from error
        grids = found["image_grid_thw"]
        lengths = (grids.prod(dim=1) // self.image_processor.merge_size**2).tolist()
        return found["pixel_values"], grids, [[self.image_id] * length for length in lengths]


def _require_agreement(encoder: VlmEncoder, config: Any) -> None:
    """Raise CheckpointError where tokenizer or image processor are not this model's: it would see noise."""
    vision, images = config.vision_config, encoder.image_processor
    if config.image_token_id != encoder.image_id:
        raise CheckpointError(
            f"The tokenizer's {encoder.image_token} is token {encoder.image_id}, but config.json says "
            f"image_token_id={config.image_token_id}.",
            fix="use the tokenizer files that belong to this Qwen-VL checkpoint.",
        )
    names = {
        "patch_size": "patch_size",
        "temporal_patch_size": "temporal_patch_size",
        "merge_size": "spatial_merge_size",
    }
    for ours, theirs in names.items():
        if getattr(images, ours) != getattr(vision, theirs):
            raise CheckpointError(
                f"preprocessor_config.json says {ours}={getattr(images, ours)}, but config.json says "
                f"vision_config.{theirs}={getattr(vision, theirs)}.",
                fix="use the preprocessor_config.json that belongs to this Qwen-VL checkpoint.",
            )
