"""Read every form of an image in datasets and commands as an RGB PIL image. No other module opens images."""

from __future__ import annotations

import base64
import binascii
import io
import warnings
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from motet.core.errors import DataError
from motet.core.registry import first_line

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
"""Formats that are decoded. Pillow supports more, some of which start other programs (EPS: Ghostscript)."""
MAX_PIXELS = 50_000_000
"""Larger images are rejected before they are decoded: a file of half a megabyte can contain gigabytes of pixels."""
MAX_ASPECT = 200
"""Longest side over shortest side. The image processors of Qwen-VL reject more."""
_ORIENTATION = 0x0112  # the EXIF tag
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
_BASE64 = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")  # how PNG, JPEG, GIF and WebP files begin in base64


class OversizedImage(DataError):
    """An image has too many pixels."""


def read_image(value: Any, folder: Path, where: str) -> Image.Image:
    """Read one RGB image.

    `value` is a PIL image, bytes of a file, a path (relative to `folder`), base64, a data URL, or a mapping
    `{"bytes": ..., "path": ...}`. Raises DataError, beginning with `where`, when it cannot be read.
    """
    return _read(value, folder, where, MAX_PIXELS, decode=True)


def check_image(value: Any, folder: Path, where: str, max_pixels: int = MAX_PIXELS) -> None:
    """Raise what `read_image` would, as far as the file's header shows; nothing is decoded.

    Raises OversizedImage for more than `max_pixels`.
    """
    _read(value, folder, where, max_pixels, decode=False)


def image_path(text: str, folder: Path) -> Path:
    """The file of an image's path or `file://` URL. Raises RuntimeError for an unknown `~user`."""
    return folder / Path(text.removeprefix("file://")).expanduser()


def image_content(value: Any, folder: Path, limit: int) -> tuple[int, bytes]:
    """Size of an image in bytes, and up to `limit` of them, to tell images apart without decoding them.

    `value` as for `read_image`; of a PIL image the pixels count. (-1, its `repr`) for what cannot be read.
    """
    if isinstance(value, Image.Image):
        content = value.tobytes()
        return len(content), content[:limit]
    try:
        source = _to_source({"bytes": value} if isinstance(value, bytes) else value, folder)
        if isinstance(source, io.BytesIO):
            return len(source.getbuffer()), source.read(limit)
        with source.open("rb") as file:
            return source.stat().st_size, file.read(limit)
    except Exception:  # what is wrong with it is reported when it is read as an image
        return -1, repr(value).encode()


def is_image_file(value: Any, folder: Path) -> bool:
    """Whether `value` is the path of an existing file, relative to `folder`, with the suffix of an image."""
    try:
        return isinstance(value, str) and value.lower().endswith(_SUFFIXES) and image_path(value, folder).is_file()
    except (OSError, RuntimeError, ValueError):  # too long, an unknown `~user`, a null character
        return False


def to_rgb(image: Image.Image) -> Image.Image:
    """Upright, 8 bits per channel, and opaque: transparent pixels become white (diagrams are often black on nothing).

    Raises ValueError for modes without a defined white value.
    """
    _check_mode(image)
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        layered = image.convert("RGBA")
        image = Image.new("RGB", image.size, "white")
        image.paste(layered, mask=layered.getchannel("A"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _read(value: Any, folder: Path, where: str, max_pixels: int, *, decode: bool) -> Image.Image:
    if not isinstance(value, Image.Image | str | bytes | dict):
        raise DataError(
            f"{where}: expected an image, bytes, a path or {{'bytes', 'path'}}, got a {type(value).__name__}.",
            fix="store images with datasets' Image feature, or as paths; several per row in the column `images`.",
        )
    try:
        if isinstance(value, Image.Image):
            _check_size(value, max_pixels)
            return to_rgb(value)  # the same object if nothing changes
        return _open(_to_source(value, folder), max_pixels, decode)
    except Exception as error:  # PIL's decoders raise nearly anything on broken bytes
        missing = isinstance(error, FileNotFoundError)
        reason = str(error) if isinstance(error, _InvalidImage) else first_line(error)
        reason = "the file does not exist" if missing else reason
        kind = OversizedImage if isinstance(error, _TooManyPixels) else DataError
        raise kind(
            f"{where}: the image {_describe(value)} cannot be read: {reason.rstrip('.')}.",
            fix=f"correct the image (paths are taken relative to {folder}).",
        ) from error


class _InvalidImage(ValueError):
    """The reason why an image is invalid."""


class _TooManyPixels(_InvalidImage):
    """It has more pixels than the limit."""


def _to_source(value: str | bytes | dict[str, Any], folder: Path) -> Path | io.BytesIO:
    """The regular file or the bytes to open."""
    content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (None, value)
    content = path if isinstance(path, bytes) else content
    if content is None and not path:
        raise _InvalidImage("neither bytes nor a path")
    if content is None and isinstance(path, str):
        content = _decode_base64(path)
    if content is not None:
        return io.BytesIO(content)
    text = str(path)
    if text.startswith(("http://", "https://")):
        raise _InvalidImage("URLs are not downloaded; download the image and give its path")
    file = image_path(text, folder)
    if file.exists() and not file.is_file():
        raise _InvalidImage("it is a folder, a pipe or a device, not a file")
    return file


def _decode_base64(text: str) -> bytes | None:
    """The bytes of a data URL or of base64; None for anything else, which is a path."""
    if text.startswith("data:"):
        head, _, text = text.partition(",")
        if not head.endswith(";base64"):
            raise _InvalidImage("a data URL must be base64: data:image/png;base64,...")
    elif not (text.startswith(_BASE64) and len(text) > 80):
        return None
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise _InvalidImage(f"it is not valid base64: {error}") from error


def _open(source: Path | io.BytesIO, max_pixels: int, decode: bool) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_check_size` is stricter
        try:
            opened = Image.open(source, formats=FORMATS)
        except Image.UnidentifiedImageError as error:
            raise _InvalidImage(f"it is not one of {', '.join(FORMATS)}") from error
        except Image.DecompressionBombError as error:
            raise _TooManyPixels(f"it has more than {max_pixels:,} pixels; scale it down") from error
    with opened as image:
        _check_size(image, max_pixels)
        _check_mode(image)
        if not decode:
            return image
        image.load()
        return to_rgb(image)


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise _TooManyPixels(f"its {width} x {height} pixels are more than {max_pixels:,}; scale it down")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise _InvalidImage(
            f"one side of its {width} x {height} pixels is more than {MAX_ASPECT} times the other; crop or pad it"
        )


def _check_mode(image: Image.Image) -> None:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise _InvalidImage(f"mode {image.mode} has no defined white value; save it with 8 bits per channel")


def _describe(value: Image.Image | str | bytes | dict[str, Any]) -> str:
    if isinstance(value, Image.Image):
        return f"(a PIL image of mode {value.mode})"
    path = value.get("path") if isinstance(value, dict) else value
    if not path or isinstance(path, bytes):
        return "(bytes)"
    path = str(path)  # in a mapping it may be anything
    if path.startswith(("data:", *_BASE64)) and len(path) > 80:
        return f"{path[:24]!r}... (base64)"
    return repr(path if len(path) <= 120 else path[:117] + "...")
