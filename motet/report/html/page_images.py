"""Images of a run as `data:` URIs, within a number of bytes; what does not fit is counted."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MAX_FILE = 40_000_000
"""Bytes of the largest image file that is opened."""


@dataclass(frozen=True)
class PageImage:
    """An image in the page: its URI and size in pixels."""

    uri: str
    width: int
    height: int

    @property
    def is_small(self) -> bool:
        """Whether it is enlarged with hard pixel edges."""
        return max(self.width, self.height) <= 96


class PageImages:
    """The images of a page. `left_out`: files that would have exceeded `budget` bytes; `unreadable` others."""

    def __init__(self, budget: int) -> None:
        self.budget, self.used = budget, 0
        self.left_out, self.unreadable = 0, 0

    def add(self, path: Path, longest: int = 256) -> PageImage | None:
        """The image of a file as WebP, `longest` pixels at its longer side at most; None if it does not fit."""
        try:
            if path.stat().st_size > MAX_FILE:
                raise OSError("too large")
            with Image.open(path) as image:
                content, size = _encode(path, image, longest)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            self.unreadable += 1
            return None
        length = 4 * len(content) // 3
        if self.used + length > self.budget:
            self.left_out += 1
            return None
        self.used += length
        return PageImage(f"data:image/webp;base64,{base64.b64encode(content).decode('ascii')}", *size)


def _encode(path: Path, image: Image.Image, longest: int) -> tuple[bytes, tuple[int, int]]:
    if image.format == "WEBP" and max(image.size) <= longest:
        return path.read_bytes(), image.size
    small, encoded = image.convert("RGB"), io.BytesIO()
    small.thumbnail((longest, longest))
    small.save(encoded, "WEBP", quality=80)
    return encoded.getvalue(), small.size


def evenly(items: Sequence[int], most: int) -> list[int]:
    """At most `most` of the items, evenly spread, with the first and the last."""
    if len(items) <= most:
        return list(items)
    if most <= 1:
        return list(items[-1:])
    return [items[round(n * (len(items) - 1) / (most - 1))] for n in range(most)]
