"""Conversation -> what a Qwen-VL sees: token ids, patches of pictures, and their grids.

The checkpoint's own chat template decides the layout; see `motet.policies.generation.chat_template` on how texts
enter it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from motet.core.conversation import Conversation
from motet.core.errors import CheckpointError, DataError
from motet.core.registry import first_line
from motet.policies.generation.chat_template import ChatTemplateEncoder, encode_unique, with_sentinels


@dataclass(frozen=True, eq=False)
class VlmEncoding:
    """What the model saw of a context, kept so that replay never derives it again. Shared by the siblings of a group.

    `ids` hold the image token once per merged patch. `pixels` are the patches of all K pictures, flattened one after
    another, and `grids` each picture's extent in patches (time, height, width); both None without pictures.
    """

    ids: Int[Tensor, "T"]
    pixels: Float[Tensor, "patches values"] | None = None
    grids: Int[Tensor, "K 3"] | None = None


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

    def encode(self, conversation: Conversation, *, room: int) -> VlmEncoding:
        """Ids and pictures of a context that ends where the assistant's turn begins.

        `room`: tokens that the act may add. Raises ContextError when both do not fit the model, DataError for a
        conversation that the template or the image processor refuses.
        """
        chat, texts, images = with_sentinels(conversation)
        pixels, grids = self._patches(images)
        merged = self.image_processor.merge_size**2
        lengths = iter(() if grids is None else (grids.prod(dim=1) // merged).tolist())
        ids: list[int] = []
        for number, piece in enumerate(self._pieces(self.rendered(chat), self.image_token, len(images))):
            if piece == self.image_token:
                ids += [self.image_id] * next(lengths)
            elif number % 2:  # a special token
                ids.append(self.tokenizer.convert_tokens_to_ids(piece))
            elif piece:
                ids += self._words(piece, texts)
        self._check_context_length(
            conversation, len(ids), room, "shorten the prompt or lower sampling.text.max_tokens."
        )
        return VlmEncoding(torch.tensor(ids, dtype=torch.long), pixels, grids)

    def encode_all(self, conversations: Sequence[Conversation], *, room: int) -> list[VlmEncoding]:
        """`encode` for each; a conversation that occurs again shares its encoding."""
        return encode_unique(conversations, lambda conversation: self.encode(conversation, room=room))

    def _patches(self, images: list[Image.Image]) -> tuple[Tensor | None, Tensor | None]:
        if not images:
            return None, None
        images = [image.convert("RGB") for image in images]
        try:
            found = self.image_processor(images=images, return_tensors="pt")
        except ValueError as error:  # a strip more than 200 times as long as wide
            sizes = ", ".join(f"{image.width} x {image.height}" for image in images)
            raise DataError(
                f"The image processor refuses a picture among {sizes}: {first_line(error)}.",
                fix="crop the picture, or leave its row out.",
            ) from error
        return found["pixel_values"], found["image_grid_thw"]


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
