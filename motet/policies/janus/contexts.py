"""Conversation -> what Janus sees: token ids by name, pixels, the unconditional branch.

The checkpoint's own chat template decides the layout. Texts are slipped into it *after* it is rendered and are tokenised
with special tokens disabled, so a prompt that says "<image_placeholder>" stays words.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from motet.conversation import Conversation, Picture
from motet.errors import CheckpointError, ContextError
from motet.trajectory import Encoding

_SENTINEL = re.compile("\ue000(\\d+)\ue001")  # private-use characters around a number: a text's place in the template


class ContextEncoder:
    """Encodes conversations for one checkpoint; ids are looked up by name (they differ between 1B and 7B)."""

    def __init__(self, processor: Any, max_positions: int) -> None:
        self.processor, self.tokenizer, self.max_positions = processor, processor.tokenizer, max_positions
        if not processor.chat_template and not self.tokenizer.chat_template:
            raise CheckpointError(
                "The checkpoint's processor has no chat template.",
                fix="save the processor of the original Janus checkpoint beside the weights.",
            )
        self.bos_id = self._id("bos_token", self.tokenizer.bos_token)
        self.eos_id = self._id("eos_token", self.tokenizer.eos_token)
        self.pad_id = self._id("pad_token", self.tokenizer.pad_token)
        self.image_token: str = processor.image_token
        self.image_id = self._id("image_token", processor.image_token)
        self.begin_image_id = self._id("boi_token", processor.image_start_token)
        self.end_image_id = self._id("eoi_token", processor.image_end_token)
        specials = sorted(set(self.tokenizer.all_special_tokens) | {self.image_token}, key=len, reverse=True)
        self._special = re.compile("(" + "|".join(map(re.escape, specials)) + ")")

    def _id(self, role: str, token: str | None) -> int:
        found = None if token is None else self.tokenizer.convert_tokens_to_ids(token)
        if found is None or found == self.tokenizer.unk_token_id:
            raise CheckpointError(
                f"The tokenizer's {role} {token!r} is not in its vocabulary.",
                fix="use the tokenizer files that belong to this Janus checkpoint.",
            )
        return int(found)

    def encode(self, conversation: Conversation, *, draws: bool, with_null: bool, room: int) -> Encoding:
        """Ids, pixels and, for guidance, the unconditional ids of a context.

        `draws`: end with the begin-of-image token instead of leaving the turn open for text. `room`: tokens that the act
        may add. Raises ContextError when both do not fit the model.
        """
        chat, texts, pictures = _with_sentinels(conversation)
        rendered = self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        ids = self._ids(rendered, texts)
        if draws:
            ids.append(self.begin_image_id)
        if len(ids) + room > self.max_positions:
            raise ContextError(
                f"The prompt has {len(ids)} tokens and its act may add {room}, but the model holds {self.max_positions}: "
                f"{conversation.text[:60]!r}...",
                fix="shorten the prompt or lower text.max_tokens.",
            )
        ids_T = torch.tensor(ids)
        null = torch.where((ids_T == self.bos_id) | (ids_T == self.begin_image_id), ids_T, self.pad_id)
        return Encoding(ids_T, self._pixels(pictures), null if with_null else None)

    def text_ids(self, text: str) -> list[int]:
        """Ids of plain text: nothing in it is special."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def _ids(self, rendered: str, texts: list[str]) -> list[int]:
        ids = [self.bos_id]
        for piece in self._special.split(rendered):
            if piece == self.image_token:
                ids += [self.begin_image_id, *[self.image_id] * self.processor.num_image_tokens, self.end_image_id]
            elif self._special.fullmatch(piece):
                if piece != self.tokenizer.bos_token or len(ids) > 1:  # some templates begin with BOS themselves
                    ids.append(self.tokenizer.convert_tokens_to_ids(piece))
            elif piece:
                ids += self.text_ids(_SENTINEL.sub(lambda match: texts[int(match[1])], piece))
        return ids

    def _pixels(self, pictures: list[Image.Image]) -> Tensor | None:
        if not pictures:
            return None
        images = [picture.convert("RGB") for picture in pictures]
        return self.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]


def _with_sentinels(conversation: Conversation) -> tuple[list[dict[str, Any]], list[str], list[Image.Image]]:
    """The chat with every text replaced by its sentinel, the texts, and the pictures in order."""
    texts: list[str] = []
    pictures: list[Image.Image] = []
    chat = []
    for message in conversation.messages:
        content: list[dict[str, str]] = []
        for part in message.parts:
            if isinstance(part, Picture):
                pictures.append(part.image)
                content.append({"type": "image"})
            else:
                content.append({"type": "text", "text": f"\ue000{len(texts)}\ue001"})
                texts.append(part.text.strip())
        chat.append({"role": message.role, "content": content})
    return chat, texts, pictures
