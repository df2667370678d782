"""Conversations: what a policy has before it when it acts, in the chat format of transformers and datasets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from motet.errors import DataError

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, eq=False)
class Text:
    """A run of text inside a message."""

    text: str


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture inside a message: an RGB PIL image whose pixels never change afterwards.

    `codes` are the image tokens that a policy drew it with, for whoever paints it anew from them; most read the pixels.
    """

    image: Image.Image
    codes: tuple[int, ...] | None = None


Part = Text | Picture


@dataclass(frozen=True, eq=False)
class Message:
    """One turn: who speaks, and the parts in order."""

    role: Role
    parts: tuple[Part, ...]


@dataclass(frozen=True, eq=False)
class Conversation:
    """An immutable sequence of messages; `a + b` continues a with b.

    Conversations compare by identity: siblings that share one object share one prefill.
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
    def pictures(self) -> list[Image.Image]:
        """All pictures of the conversation, in order."""
        return [part.image for message in self.messages for part in message.parts if isinstance(part, Picture)]

    @property
    def text(self) -> str:
        """All text of the conversation, one message per line: for reports, never for a model."""
        lines = (" ".join(p.text for p in m.parts if isinstance(p, Text)) for m in self.messages)
        return "\n".join(line for line in lines if line)


def _parts(contents: tuple[str | Image.Image, ...]) -> tuple[Part, ...]:
    return tuple(Text(c) if isinstance(c, str) else Picture(c) for c in contents)


def user(*contents: str | Image.Image) -> Conversation:
    """One user turn of texts and pictures."""
    return Conversation((Message("user", _parts(contents)),))


def assistant(*contents: str | Image.Image) -> Conversation:
    """One assistant turn of texts and pictures."""
    return Conversation((Message("assistant", _parts(contents)),))


def from_chat(chat: Sequence[Mapping[str, Any]], pictures: Sequence[Image.Image] = ()) -> Conversation:
    """Read chat messages (`to_chat`'s form, or TRL's with plain string contents).

    An `{"type": "image"}` part without an `image` of its own takes the next of `pictures`, as in TRL.
    """
    remaining = list(pictures)
    messages: list[Message] = []
    for number, message in enumerate(chat):
        content = message.get("content")
        parts: list[Part] = []
        listed: Sequence[Mapping[str, Any]] = (
            [{"type": "text", "text": content}] if isinstance(content, str) else content or ()
        )
        for part in listed:
            if part.get("type") == "text":
                parts.append(Text(part["text"]))
            elif part.get("type") == "image" and (part.get("image") is not None or remaining):
                parts.append(Picture(part["image"] if part.get("image") is not None else remaining.pop(0)))
            else:
                raise DataError(
                    f"Message {number} holds a part {part!r} that is neither text nor an image at hand.",
                    fix='use {"type": "text", "text": ...} and {"type": "image"} with as many `images` as parts.',
                )
        if message.get("role") not in ("system", "user", "assistant"):
            raise DataError(f"Message {number} has role {message.get('role')!r}.", fix="use system, user or assistant.")
        messages.append(Message(message["role"], tuple(parts)))
    return Conversation(tuple(messages))
