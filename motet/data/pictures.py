"""Whatever a dataset calls a picture -> an RGB PIL image."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from motet.errors import DataError
from motet.lookup import first_line

_ORIENTATION = 0x0112  # the EXIF tag


def read_picture(value: Any, folder: Path, where: str) -> Image.Image:
    """One RGB picture from a PIL image, a path (relative to `folder`) or `{"bytes": ..., "path": ...}`.

    Raises DataError, beginning with `where`, when it cannot be read.
    """
    if isinstance(value, Image.Image) and value.mode == "RGB":
        return value
    if not isinstance(value, Image.Image | str | dict):
        raise DataError(
            f"{where}: a picture is a {type(value).__name__}, not an image, a path or {{'bytes', 'path'}}.",
            fix="store pictures with datasets' Image feature, or as paths; several per row go to the column `images`.",
        )
    try:
        return _to_rgb(_open(value, folder))
    except Exception as error:  # PIL's decoders raise nearly anything on broken bytes
        raise DataError(
            f"{where}: the picture {_name(value)} cannot be read: {first_line(error)}.",
            fix=f"mend or remove the row; paths are taken relative to {folder}, and base64 or URLs are not read.",
        ) from error


def read_pictures(value: Any, folder: Path, where: str) -> list[Image.Image] | None:
    """The column `images`: a list of pictures, one picture alone, or None."""
    if value is None:
        return None
    values = list(value) if isinstance(value, list | tuple) else [value]
    return [read_picture(one, folder, f"{where}[{number}]") for number, one in enumerate(values)]


def _open(value: Image.Image | str | dict[str, Any], folder: Path) -> Image.Image:
    if isinstance(value, Image.Image):
        return value
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (None, value)
    if content is None and not path:
        raise ValueError("neither bytes nor a path")
    source = io.BytesIO(content) if content is not None else folder / Path(str(path)).expanduser()
    with Image.open(source) as image:
        image.load()
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Upright, 8 bits, and opaque: what is transparent becomes white (diagrams are often black on nothing)."""
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise ValueError(f"mode {image.mode} does not say which value is white; save it with 8 bits per channel")
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        layered = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(layered, mask=layered.getchannel("A"))
    return image.convert("RGB")


def _name(value: Image.Image | str | dict[str, Any]) -> str:
    if isinstance(value, Image.Image):
        return f"(a PIL image of mode {value.mode})"
    path = value.get("path") if isinstance(value, dict) else value
    return "(bytes)" if not path else repr(path if len(path) <= 120 else path[:117] + "...")
