"""Files that a command was asked for: refused before its work begins, written whole or not at all after it is shown."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motet.core.atomic_files import write_whole
from motet.core.errors import OutputError
from motet.report.terminal import Terminal

IMAGE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Suffix -> Pillow's format."""


def refuse_output(
    option: str, path: Path | None, *, overwrite: bool, suffixes: Mapping[str, str] | None = None
) -> None:
    """Raise OutputError for a folder, a file that exists (unless `overwrite`), another suffix, or no place to write.

    `option` is the command's, for the message. Devices (/dev/stdout) may be written to as they are.
    """
    if path is None or _is_device(path):
        return
    where = f"{option} {str(path)!r}"
    if suffixes is not None and path.suffix.lower() not in suffixes and not os.path.isdir(path):
        raise OutputError(f"{where} has an unknown file type.", fix=f"end it in one of {', '.join(suffixes)}.")
    if os.path.isdir(path):
        raise OutputError(f"{where} is a folder.", fix=f"name a file in it: {path / f'out{_usual(suffixes)}'}.")
    if os.path.isfile(path) and not overwrite:
        raise OutputError(f"{where} exists.", fix="name a new file, or add --overwrite.")
    folder = path.absolute().parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK):
        problem = "you may not write there" if os.path.isdir(folder) else f"{str(folder)!r} is not a folder"
        raise OutputError(f"{where} cannot be written: {problem}.", fix="name a file in a folder of yours.")


def write_output(option: str, path: Path, content: bytes) -> None:
    """Write a file, its folder made if needed; a device is written to as it is. Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_device(path):
            path.write_bytes(content)
        else:
            write_whole(path, content)
    except OSError as error:
        raise OutputError(
            f"{option} {str(path)!r} cannot be written: {error.strerror or error}.",
            fix="free some space, or name a file elsewhere.",
        ) from error


def show_numbers(table: Any, numbers: Any, path: Path | None) -> None:
    """Print what a command found, then write its numbers: what took hours is lost by neither a full disk nor a pipe."""
    try:
        Terminal().print(table)
    finally:
        write_numbers(path, numbers)


def write_numbers(path: Path | None, numbers: Any) -> None:
    """Write a command's numbers as JSON for other programs; None: nobody asked for them.

    JSON has no NaN: what is not known (a correlation with a constant) is null.
    """
    if path is not None:
        write_output("--json", path, (json.dumps(_finite_or_null(numbers), indent=2, allow_nan=False) + "\n").encode())


def write_image(option: str, path: Path, image: Any) -> None:
    """Write a PIL picture in the format that the file's name says, see PICTURES; PNG to a device, which has none."""
    content = io.BytesIO()
    image.save(content, format=IMAGE_FORMATS.get(path.suffix.lower(), "PNG"))
    write_output(option, path, content.getvalue())


def _is_device(path: Path) -> bool:
    """A pipe, a terminal, /dev/null; and /dev/stdout, which may be a file for all that."""
    return path.parent == Path("/dev") or (path.exists() and not path.is_file() and not path.is_dir())


def _usual(suffixes: Mapping[str, str] | None) -> str:
    return ".json" if suffixes is None else next(iter(suffixes))


def _finite_or_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite_or_null(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite_or_null(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
