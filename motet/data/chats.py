"""Read the images of chat messages and of the column `images`, in every form in which datasets store them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

_KEYS = ("image", "url", "path", "base64")
"""Keys of the image in an image part: Qwen's and TRL's form, then those of transformers' chat templates."""


def read_images(value: Any, read: Callable[..., Image.Image], where: str) -> list[Image.Image]:
    """The images of the column `images`: a list, or a single image. `read(value, where=...)` reads one."""
    values = list(value) if isinstance(value, list | tuple) else [value]
    return [read(one, where=f"{where}[{number}]") for number, one in enumerate(values)]


def read_chat(chat: Sequence[Any], read: Callable[[Any], Image.Image]) -> list[Any]:
    """Chat messages in which every image part is `{"type": "image"}`, a placeholder, or has its image under `image`.

    Accepts `{"type": "image", "image": ...}` (also `url`, `path`, `base64`) and OpenAI's `{"type": "image_url",
    "image_url": {"url": ...}}`. Everything else is returned unchanged: `from_chat` validates it.
    """
    return [
        {**message, "content": [_part(part, read) for part in message["content"]]}
        if isinstance(message, Mapping) and isinstance(message.get("content"), list | tuple)
        else message
        for message in chat
    ]


def _part(part: Any, read: Callable[[Any], Image.Image]) -> Any:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "image":
        stored = next((part[key] for key in _KEYS if part.get(key) is not None), None)
        return {"type": "image"} if stored is None else {"type": "image", "image": read(stored)}
    if kind == "image_url" and part.get("image_url") is not None:
        address = part["image_url"]
        return {"type": "image", "image": read(address.get("url") if isinstance(address, Mapping) else address)}
    return part
