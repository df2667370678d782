"""Conversation -> what Janus sees: token ids by name, pixels, the unconditional branch.

The checkpoint's own chat template decides the layout. Texts are slipped into it *after* it is rendered and are
tokenised with special tokens disabled, so a prompt that says "<image_placeholder>" stays words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image
from torch import Tensor
from transformers.models.janus.processing_janus import DEFAULT_SYSTEM_PROMPT

from motet.conversation import Conversation, Picture
from motet.errors import CheckpointError, ContextError, DataError
from motet.trajectory import Encoding

SENTINEL = re.compile("\ue000(\\d+)\ue001")  # private-use characters around a number: a text's place in the template


class ContextEncoder:
    """Encodes conversations for one checkpoint; ids are looked up by name (they differ between 1B and 7B).

    `max_positions` is how many tokens the language model can read.
    """

    def __init__(self, processor: Any, max_positions: int) -> None:
        self.processor, self.tokenizer, self.max_positions = processor, processor.tokenizer, max_positions
        self.template = _chat_template(processor)
        self.bos_id = self._id("bos_token", self.tokenizer.bos_token)
        self.eos_id = self._id("eos_token", self.tokenizer.eos_token)
        self.pad_id = self._id("pad_token", self.tokenizer.pad_token)
        self.image_token: str = processor.image_token
        self.image_id = self._id("image_token", processor.image_token)
        self.begin_image_id = self._id("boi_token", processor.image_start_token)
        self.end_image_id = self._id("eoi_token", processor.image_end_token)
        specials = sorted(self.special_tokens(), key=len, reverse=True)
        self.special_pattern = re.compile("(" + "|".join(map(re.escape, specials)) + ")")

    def encode(self, conversation: Conversation, *, draws: bool, with_null: bool, room: int) -> Encoding:
        """Ids, pixels and, for guidance, the unconditional ids of a context.

        `draws`: end with the begin-of-image token instead of leaving the turn open for text. `room`: tokens that the
        act may add. Raises ContextError when both do not fit the model.
        """
        chat, texts, pictures = with_sentinels(conversation)
        ids = self._ids(self.rendered(chat, draws), texts, len(pictures))
        if draws:
            ids.append(self.begin_image_id)
        if len(ids) + room - 1 > self.max_positions:  # the last token is never read
            raise ContextError(
                f"The prompt has {len(ids)} tokens and its act may add {room}, but the model holds "
                f"{self.max_positions}: {conversation.text[:60]!r}...",
                fix="shorten the prompt." if draws else "shorten the prompt or lower text.max_tokens.",
            )
        ids_T = torch.tensor(ids)
        null = torch.where((ids_T == self.bos_id) | (ids_T == self.begin_image_id), ids_T, self.pad_id)
        return Encoding(ids_T, self._pixels(pictures), null if with_null else None)

    def encode_all(
        self, conversations: Sequence[Conversation], *, draws: bool, with_null: bool, room: int
    ) -> list[Encoding]:
        """`encode` for each; a conversation that occurs again shares its encoding."""
        known: dict[int, Encoding] = {}
        for one in conversations:
            if id(one) not in known:
                known[id(one)] = self.encode(one, draws=draws, with_null=with_null, room=room)
        return [known[id(one)] for one in conversations]

    def text_ids(self, text: str) -> list[int]:
        """Ids of plain text: nothing in it is special."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def _id(self, role: str, token: str | None) -> int:
        found = None if token is None else self.tokenizer.convert_tokens_to_ids(token)
        if found is None or found == self.tokenizer.unk_token_id:
            raise CheckpointError(
                f"The tokenizer's {role} {token!r} is not in its vocabulary.",
                fix="use the tokenizer files that belong to this Janus checkpoint.",
            )
        return int(found)

    def special_tokens(self) -> set[str]:
        """Tokens that steer the model; no text ever becomes one of them.

        Flags decide, not names: `all_special_tokens` leaves out role markers such as <|User|>.
        """
        named = {self.tokenizer.convert_ids_to_tokens(n) for n in (self.bos_id, self.eos_id, self.pad_id)}
        named |= {self.image_token, self.processor.image_start_token, self.processor.image_end_token}
        return named | {token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special}

    def rendered(self, chat: list[dict[str, Any]], draws: bool) -> str:
        """The chat in the checkpoint's template, sentinels in the place of texts. Raises DataError if it refuses."""
        try:
            rendered = self.processor.apply_chat_template(
                chat, chat_template=self.template, add_generation_prompt=True, tokenize=False
            )
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in chat)
            raise DataError(
                f"The checkpoint's chat template refuses a conversation of {roles}: {error}.",
                fix="use turns that it knows, usually user and assistant in alternation.",
            ) from error
        greeting = DEFAULT_SYSTEM_PROMPT if self.processor.use_default_system_prompt and not draws else ""
        return greeting + rendered

    def _ids(self, rendered: str, texts: list[str], num_pictures: int) -> list[int]:
        ids = [self.bos_id]
        pieces = self.special_pattern.split(rendered)
        if pieces.count(self.image_token) != num_pictures:
            raise CheckpointError(
                f"The chat template shows {pieces.count(self.image_token)} of {num_pictures} pictures.",
                fix="use the chat template that belongs to this Janus checkpoint.",
            )
        for number, piece in enumerate(pieces):
            if piece == self.image_token:
                ids += [self.begin_image_id, *[self.image_id] * self.processor.num_image_tokens, self.end_image_id]
            elif number % 2:  # a special token
                if piece != self.tokenizer.bos_token or len(ids) > 1:  # some templates begin with BOS themselves
                    ids.append(self.tokenizer.convert_tokens_to_ids(piece))
            elif piece:
                ids += self.text_ids(SENTINEL.sub(lambda match: texts[int(match[1])], piece))
        return ids

    def _pixels(self, pictures: list[Image.Image]) -> Tensor | None:
        if not pictures:
            return None
        images = [picture.convert("RGB") for picture in pictures]
        return self.processor.image_processor(images=images, return_tensors="pt")["pixel_values"]


def _chat_template(processor: Any) -> str:
    template = processor.chat_template or processor.tokenizer.chat_template
    if isinstance(template, dict):  # several, by name
        template = template.get("default")
    if not template:
        raise CheckpointError(
            "The checkpoint's processor has no chat template.",
            fix="save the processor of the original Janus checkpoint beside the weights.",
        )
    return template


def with_sentinels(conversation: Conversation) -> tuple[list[dict[str, Any]], list[str], list[Image.Image]]:
    """The chat with every text replaced by its sentinel, the texts, and the pictures in order.

    White space around a text stays outside, where the template can strip it.
    """
    texts: list[str] = []
    pictures: list[Image.Image] = []
    chat = []
    for message in conversation.messages:
        content: list[dict[str, str]] = []
        for part in message.parts:
            if isinstance(part, Picture):
                pictures.append(part.image)
                content.append({"type": "image"})
                continue
            core = part.text.strip()
            before, _, after = part.text.partition(core) if core else (part.text, "", "")
            content.append({"type": "text", "text": f"{before}\ue000{len(texts)}\ue001{after}" if core else before})
            texts.append(core)
        chat.append({"role": message.role, "content": content})
    return chat, texts, pictures
