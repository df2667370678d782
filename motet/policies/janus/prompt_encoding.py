"""Conversation -> what Janus sees: token ids by name, pixels, the unconditional branch.

The checkpoint's own chat template decides the layout; see `motet.policies.generation.chat_template` on how texts
enter it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT

from motet.core.conversation import Conversation
from motet.core.trajectory import Encoding
from motet.policies.generation.chat_template import ChatTemplateEncoder, encode_unique, with_sentinels


class ContextEncoder(ChatTemplateEncoder):
    """Encodes conversations for one checkpoint; ids are looked up by name (they differ between 1B and 7B).

    `max_positions` is how many tokens the language model can read.
    """

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

    def encode(self, conversation: Conversation, *, draws: bool, with_null: bool, room: int) -> Encoding:
        """Ids, pixels and, for guidance, the unconditional ids of a context.

        `draws`: end with the begin-of-image token instead of leaving the turn open for text. `room`: tokens that the
        act may add. Raises ContextError when both do not fit the model.
        """
        chat, texts, images = with_sentinels(conversation)
        ids = self._ids(self.with_system_prompt(chat, draws), texts, len(images))
        if draws:
            ids.append(self.begin_image_id)
        fix = "shorten the prompt." if draws else "shorten the prompt or lower sampling.text.max_tokens."
        self._check_context_length(conversation, len(ids), room, fix)
        ids_T = torch.tensor(ids)
        null = torch.where((ids_T == self.bos_id) | (ids_T == self.begin_image_id), ids_T, self.pad_id)
        return Encoding(ids_T, self._pixels(images), null if with_null else None)

    def encode_all(
        self, conversations: Sequence[Conversation], *, draws: bool, with_null: bool, room: int
    ) -> list[Encoding]:
        """`encode` for each; a conversation that occurs again shares its encoding."""
        return encode_unique(conversations, lambda c: self.encode(c, draws=draws, with_null=with_null, room=room))

    def with_system_prompt(self, chat: list[dict[str, Any]], draws: bool) -> str:
        """`rendered`, after the system prompt where the processor wants one and text is to be written."""
        greeting = DEFAULT_SYSTEM_PROMPT if self.processor.use_default_system_prompt and not draws else ""
        return greeting + self.rendered(chat)

    def _ids(self, rendered: str, texts: list[str], num_images: int) -> list[int]:
        ids = [self.bos_id]
        for number, piece in enumerate(self._pieces(rendered, self.image_token, num_images)):
            if piece == self.image_token:
                ids += [self.begin_image_id, *[self.image_id] * self.processor.num_image_tokens, self.end_image_id]
            elif number % 2:  # a special token
                if piece != self.tokenizer.bos_token or len(ids) > 1:  # some templates begin with BOS themselves
                    ids.append(self.tokenizer.convert_tokens_to_ids(piece))
            elif piece:
                ids += self._words(piece, texts)
        return ids

    def _pixels(self, images: list[Image.Image]) -> Tensor | None:
        if not images:
            return None
        images = [image.convert("RGB") for image in images]
        return self.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]
