"""Conversation -> prompt of Janus: token ids by name, pixels, the unconditional branch.

The checkpoint's own chat template decides the layout; see `motet.policies.generation.chat_template` on how texts
enter it.
"""

from __future__ import annotations

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT

from motet.policies.generation.chat_template import ChatTemplateEncoder


class ContextEncoder(ChatTemplateEncoder):
    """Encodes conversations for one checkpoint; ids are looked up by name (they differ between 1B and 7B).

    `max_positions` is how many tokens fit the language model.
    """

    bos_id: int

    def __init__(self, processor: Any, max_positions: int) -> None:
        tokenizer = processor.tokenizer
        template = processor.chat_template or tokenizer.chat_template
        super().__init__(processor, tokenizer, max_positions, family="Janus", template=template)
        self.processor = processor
        self.bos_id = self._id("bos_token", tokenizer.bos_token)
        self.eos_id = self._id("eos_token", tokenizer.eos_token)
        self.pad_id = self._id("pad_token", tokenizer.pad_token)
        self.image_token = processor.image_token
        self.image_id = self._id("image_token", processor.image_token)
        self.begin_image_id = self._id("boi_token", processor.image_start_token)
        self.end_image_id = self._id("eoi_token", processor.image_end_token)
        around = {self.image_token, processor.image_start_token, processor.image_end_token}
        self._set_control_tokens({tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token} | around)

    def with_system_prompt(self, chat: list[dict[str, Any]], kind: str) -> str:
        """`rendered`, after the system prompt where the processor wants one and text is to be generated."""
        default = DEFAULT_SYSTEM_PROMPT if self.processor.use_default_system_prompt and kind == "text" else ""
        return default + self.rendered(chat)

    def _render(self, chat: list[dict[str, Any]], kind: str) -> str:
        return self.with_system_prompt(chat, kind)

    def _image_prefix(self) -> list[int]:
        return [self.begin_image_id]

    def _null_ids(self, ids: Tensor, kind: str) -> Tensor:
        return torch.where((ids == self.bos_id) | (ids == self.begin_image_id), ids, self.pad_id)

    def _encode_images(self, images: list[Image.Image]) -> tuple[Tensor | None, None, list[list[int]]]:
        ids = [self.begin_image_id, *[self.image_id] * self.processor.num_image_tokens, self.end_image_id]
        if not images:
            return None, None, []
        converted = [image.convert("RGB") for image in images]
        pixels = self.processor.image_processor(images=converted, return_tensors="pt")["pixel_values"]
        return pixels, None, [ids] * len(images)
