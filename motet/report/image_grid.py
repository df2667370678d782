"""Image grids with captions, and writing images as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from motet.core.atomic_files import write_atomic

_TILE, _GAP, _CAPTION = 128, 14, 46
_BACKGROUND, _TEXT, _CORRECT, _WRONG = "#ffffff", "#2b2f36", "#34a254", "#db3a34"


def make_image_grid(
    images: Sequence[Image.Image],
    captions: Sequence[str],
    correct: Sequence[bool | None],
    columns: int = 8,
    title: str = "",
) -> Image.Image:
    """A grid of images with captions: a green frame if correct, a red one if wrong, none if `correct` is None.

    `images`, `captions` and `correct` have one entry per image. Each image is scaled to 128 x 128 pixels.
    """
    columns = max(1, min(columns, len(images)))
    rows = math.ceil(len(images) / columns)
    header = 40 if title else _GAP
    size = (columns * (_TILE + _GAP) + _GAP, rows * (_TILE + _CAPTION + _GAP) + header)
    grid = Image.new("RGB", size, _BACKGROUND)
    canvas = ImageDraw.Draw(grid)
    small, large = ImageFont.load_default(11), ImageFont.load_default(18)
    if title:
        canvas.text((_GAP, 10), title, fill=_TEXT, font=large)
    for index, (image, caption, is_correct) in enumerate(zip(images, captions, correct, strict=True)):
        row, column = divmod(index, columns)
        left, top = _GAP + column * (_TILE + _GAP), header + row * (_TILE + _CAPTION + _GAP)
        if is_correct is not None:
            frame = (left - 4, top - 4, left + _TILE + 3, top + _TILE + 3)
            canvas.rectangle(frame, outline=_CORRECT if is_correct else _WRONG, width=3)
        smooth = image.width >= _TILE  # small images keep hard pixel edges
        tile = image.convert("RGB").resize(
            (_TILE, _TILE), Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
        )
        grid.paste(tile, (left, top))
        for line, text in enumerate(_wrap(caption, small)[:3]):
            canvas.text((left, top + _TILE + 5 + 13 * line), text, fill=_TEXT, font=small)
    return grid


def count_correct(correct: Sequence[bool | None]) -> str:
    """What the frames say, for a title: `27 of 40 correct (green frames)`; empty without frames."""
    known = [one for one in correct if one is not None]
    return f"{sum(known)} of {len(known)} correct (green frames)" if known else ""


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """Lines that are no wider than a tile, unless a single word is."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > _TILE:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG atomically, creating its folder if needed. Raises OSError."""

    encoded = io.BytesIO()
    image.save(encoded, format="PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, encoded.getvalue())
