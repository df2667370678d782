"""Conversations: the prompt context of a generation, in the chat format of transformers and datasets."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from motet.core.errors import DataError
from motet.core.images import read_image

Role = Literal["system", "user", "assistant"]


IMAGE_PLACEHOLDER = "<image>"
"""Placeholder of an image in a text, as LLaVA, LLaMA-Factory, ms-swift and EasyR1 write it."""
MAX_TEXT = 1_000_000
"""Maximum number of characters of a text: more than any model's context, and minutes of work for a tokenizer."""
_PLACEHOLDERS = re.compile(rf"\s*{re.escape(IMAGE_PLACEHOLDER)}\s*")


@dataclass(frozen=True, eq=False)
class Text:
    """The text part of a message. Raises DataError for text that cannot be encoded, or is longer than MAX_TEXT."""

    text: str

    def __post_init__(self) -> None:
        if len(self.text) > MAX_TEXT:
            raise DataError(
                f"A text of {len(self.text):,} characters, {self.text[:40]!r}..., is longer than {MAX_TEXT:,}.",
                fix="shorten the text.",
            )
        try:
            self.text.encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"A text contains {self.text[error.start]!r} at character {error.start}, half of a surrogate "
                "pair, which is not a character.",
                fix="correct or remove it: the text was truncated, or not decoded as UTF-8.",
            ) from error


@dataclass(frozen=True, eq=False)
class ImagePart:
    """The image part of a message: an RGB PIL image whose pixels must not change.

    `image_token_ids` are the codebook indices that a policy sampled it as, None for any other image.
    """

    image: Image.Image
    image_token_ids: tuple[int, ...] | None = None


Part = Text | ImagePart


@dataclass(frozen=True, eq=False)
class Message:
    """One turn: its role, and its parts in order."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, eq=False)
class Conversation:
    """An immutable sequence of messages; `a + b` continues a with b.

    Conversations compare by identity: requests that share one object share one prefill.
    """

    messages: tuple[Message, ...] = ()

    def __add__(self, other: Conversation) -> Conversation:
        return Conversation(self.messages + other.messages)

    def to_chat(self) -> list[dict[str, Any]]:
        """The `{"role", "content": [{"type": "text"|"image", ...}]}` form that rewards and datasets use."""
        return [
            {
                "role": message.role,
                "content": [
                    {"type": "text", "text": part.text}
                    if isinstance(part, Text)
                    else {"type": "image", "image": part.image}
                    for part in message.parts
                ],
            }
            for message in self.messages
        ]

    @property
    def images(self) -> list[Image.Image]:
        """All images of the conversation, in order."""
        return [part.image for message in self.messages for part in message.parts if isinstance(part, ImagePart)]

    @property
    def text(self) -> str:
        """All text of the conversation, one message per line: for reports, never for a model."""
        lines = (" ".join(p.text for p in m.parts if isinstance(p, Text)) for m in self.messages)
        return "\n".join(line for line in lines if line)


def _parts(contents: tuple[str | Image.Image, ...]) -> tuple[Part, ...]:
    return tuple(Text(c) if isinstance(c, str) else _image_part(c) for c in contents)


def _image_part(image: Any) -> ImagePart:
    return ImagePart(read_image(image, Path(), "A message"))


def user(*contents: str | Image.Image) -> Conversation:
    """One user turn of texts and images."""
    return Conversation((Message("user", _parts(contents)),))


def assistant(*contents: str | Image.Image) -> Conversation:
    """One assistant turn of texts and images."""
    return Conversation((Message("assistant", _parts(contents)),))


def from_column(content: Any, images: Sequence[Image.Image] = (), *, lead: bool = True) -> Conversation:
    """The conversation of a row's column: a text, which is one user turn, or chat messages; with the row's images.

    See `from_chat` for the positions of the images. Raises DataError also for a chat that ends with an assistant turn:
    the gold answer would be part of the question.
    """
    if isinstance(content, str):
        return from_chat([{"role": "user", "content": content}], images, lead=lead)
    if not isinstance(content, list | tuple) or not content:
        raise DataError(f"{content!r:.80} is not a text or chat messages.", fix="store a text, or messages.")
    conversation = from_chat(content, images, lead=lead)
    if conversation.messages[-1].role == "assistant":
        raise DataError(
            "The chat ends with an assistant turn: the answer would be part of the question.",
            fix='split the row: {"question": messages[:-1], "answer": messages[-1]["content"]}.',
        )
    return conversation


def from_chat(chat: Sequence[Any], images: Sequence[Image.Image] = (), *, lead: bool = True) -> Conversation:
    """Read chat messages (`to_chat`'s form, or TRL's with plain string contents), and insert `images`.

    Placeholders are `{"type": "image"}` parts without an `image`, and `<image>` in texts; each takes the next image. In
    a chat without placeholders and images, all images are inserted before the first user turn that is plain text, as by
    TRL's `prepare_multimodal_messages`; with `lead` False, none are. Raises DataError when the numbers of placeholders
    and images differ.
    """
    turns = [_parse_turn(number, message) for number, message in enumerate(chat)]
    num_placeholders = sum(part is None for turn in turns for part in turn.parts)
    num_own = sum(isinstance(part, ImagePart) for turn in turns for part in turn.parts)
    asked = sorted((turn for turn in turns if turn.role == "user"), key=lambda turn: not turn.plain)
    if lead and not num_placeholders and not num_own and asked:
        asked[0].parts[:0] = [None] * len(images)
        num_placeholders = len(images)
    if num_placeholders != len(images) and (num_placeholders or lead):
        beside = f" beside {num_own} images of its own" if num_own else ""
        raise DataError(
            f"The text has {num_placeholders} placeholders ({IMAGE_PLACEHOLDER} or image parts){beside}, but the row "
            f"has {len(images)} images in `images` or `image`.",
            fix="give as many images as placeholders; a question without any begins with all images of the row.",
        )
    following = iter(images)
    return Conversation(
        tuple(
            Message(turn.role, tuple(_image_part(next(following)) if part is None else part for part in turn.parts))
            for turn in turns
        )
    )


@dataclass(frozen=True)
class _Turn:
    """A message before its images are inserted: None is a placeholder. `plain`: the content was a string."""

    role: Role
    parts: list[Part | None]
    plain: bool


def _parse_turn(number: int, message: Any) -> _Turn:
    if not isinstance(message, Mapping) or "role" not in message:
        raise DataError(
            f"Message {number} is {message!r:.80}, not {{'role': ..., 'content': ...}}.",
            fix='convert it; for ShareGPT\'s form {"role": {"human": "user", "gpt": "assistant"}[m["from"]], '
            '"content": m["value"]}.',
        )
    role, content = message["role"], message.get("content")
    if role not in ("system", "user", "assistant"):
        raise DataError(f"Message {number} has role {role!r}.", fix="use system, user or assistant.")
    if isinstance(content, str):
        return _Turn(role, _split_at_placeholders(content), True)
    if not isinstance(content, list | tuple):
        raise DataError(f"Message {number} has the content {content!r:.80}.", fix="give a text, or a list of parts.")
    return _Turn(role, [part for entry in content for part in _parse_part(number, entry)], False)


def _parse_part(number: int, part: Any) -> list[Part | None]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return _split_at_placeholders(part["text"])
    if kind == "image" and isinstance(part.get("image"), Image.Image | None):
        return [None if part.get("image") is None else _image_part(part["image"])]
    raise DataError(
        f"Message {number} holds a part {part!r:.120} that is not text, nor an image or a placeholder.",
        fix='use {"type": "text", "text": ...} and {"type": "image"} with as many `images` as parts; a scenario of '
        "your own names the columns that hold chats in `columns`, so that their images are read.",
    )


def _split_at_placeholders(text: str) -> list[Part | None]:
    """A text split at its placeholders; white space beside a placeholder is removed."""
    pieces: list[Part | None] = []
    for number, piece in enumerate(_PLACEHOLDERS.split(text)):
        pieces += [None] * (number > 0)
        if piece or IMAGE_PLACEHOLDER not in text:
            pieces.append(Text(piece))
    return pieces
