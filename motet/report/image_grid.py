"""Picture grids as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from motet.core.atomic_files import write_whole

_TILE, _GAP, _CAPTION = 128, 14, 46
_PAPER, _INK, _RIGHT, _WRONG = "#ffffff", "#2b2f36", "#34a254", "#db3a34"


def picture_grid(
    pictures: Sequence[Image.Image],
    captions: Sequence[str],
    correct: Sequence[bool | None],
    columns: int = 8,
    title: str = "",
) -> Image.Image:
    """Pictures side by side with captions, framed green where right, red where wrong, unframed where not judged."""
    columns = max(1, min(columns, len(pictures)))
    lines = math.ceil(len(pictures) / columns)
    head = 40 if title else _GAP
    sheet = Image.new("RGB", (columns * (_TILE + _GAP) + _GAP, lines * (_TILE + _CAPTION + _GAP) + head), _PAPER)
    pen = ImageDraw.Draw(sheet)
    small, large = ImageFont.load_default(11), ImageFont.load_default(18)
    if title:
        pen.text((_GAP, 10), title, fill=_INK, font=large)
    for number, (picture, caption, right) in enumerate(zip(pictures, captions, correct, strict=True)):
        line, column = divmod(number, columns)
        left, top = _GAP + column * (_TILE + _GAP), head + line * (_TILE + _CAPTION + _GAP)
        if right is not None:
            frame = (left - 4, top - 4, left + _TILE + 3, top + _TILE + 3)
            pen.rectangle(frame, outline=_RIGHT if right else _WRONG, width=3)
        smooth = picture.width >= _TILE  # small pictures keep their pixels
        tile = picture.convert("RGB").resize(
            (_TILE, _TILE), Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
        )
        sheet.paste(tile, (left, top))
        for row, text in enumerate(_wrapped(caption, 24)[:3]):
            pen.text((left, top + _TILE + 5 + 13 * row), text, fill=_INK, font=small)
    return sheet


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all, its folder made if needed. Raises OSError."""
    encoded = io.BytesIO()
    image.save(encoded, format="PNG")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, encoded.getvalue())
