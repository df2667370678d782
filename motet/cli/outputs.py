"""Output files of commands: checked before the work starts, written atomically after the result is printed."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motet.core.atomic_files import write_atomic
from motet.core.errors import OutputError
from motet.core.write_errors import write_error
from motet.report.terminal import Terminal

IMAGE_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Suffix -> Pillow's format."""


def check_output(option: str, path: Path | None, *, overwrite: bool, suffixes: Mapping[str, str] | None = None) -> None:
    """Raise OutputError for a folder, an existing file (unless `overwrite`), another suffix, or an unwritable place.

    `option` is the command-line option, for the message. Devices such as /dev/stdout are allowed.
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
        problem = "permission denied" if os.path.isdir(folder) else f"{str(folder)!r} is not a folder"
        raise OutputError(f"{where} cannot be written: {problem}.", fix="name a file in a writable folder.")


def write_output(option: str, path: Path, content: bytes) -> None:
    """Write a file atomically, creating its folder if needed, or write to a device. Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_device(path):
            path.write_bytes(content)
        else:
            write_atomic(path, content)
    except OSError as error:
        raise write_error(OutputError, f"{option} {str(path)!r}", error) from error


def show_results(table: Any, results: Any, path: Path | None) -> None:
    """Print a command's results, then write them, so that neither a closed pipe nor a full disk loses both."""
    try:
        Terminal().print(table)
    finally:
        write_results(path, results)


def write_results(path: Path | None, results: Any) -> None:
    """Write a command's results as JSON, if a path is given.

    JSON has no NaN: undefined values (a correlation with a constant) become null.
    """
    if path is not None:
        write_output("--json", path, (json.dumps(finite_or_null(results), indent=2, allow_nan=False) + "\n").encode())


def write_image(option: str, path: Path, image: Any) -> None:
    """Write a PIL image in the format of the file's suffix (see IMAGE_FORMATS); PNG to a device."""
    content = io.BytesIO()
    image.save(content, format=IMAGE_FORMATS.get(path.suffix.lower(), "PNG"))
    write_output(option, path, content.getvalue())


def _is_device(path: Path) -> bool:
    """A pipe, a terminal or /dev/null; also /dev/stdout, which may be a regular file."""
    return path.parent == Path("/dev") or (path.exists() and not path.is_file() and not path.is_dir())


def _usual(suffixes: Mapping[str, str] | None) -> str:
    return ".json" if suffixes is None else next(iter(suffixes))


def finite_or_null(value: Any) -> Any:
    """The value with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: finite_or_null(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite_or_null(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
