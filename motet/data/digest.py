"""A digest of a dataset's rows, so that a resumed run can report which of them have changed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from motet.core.images import image_content, image_path
from motet.data.rows import Rows

BLOCKS = 1000
"""Maximum number of blocks in a digest: up to a thousand rows, each row is a block."""
_HEX = 8
_IMAGE_BYTES = 65536


def digest_rows(rows: Rows) -> str | None:
    """Eight hexadecimal digits per block of rows; None for endless rows and generated ones.

    It covers every column as stored. Images are covered by path and file size; those stored in Parquet files and
    datasets are not.
    """
    size, digests, block = rows.size, "", hashlib.sha256()
    if size is None or rows.generated:
        return None
    step = _rows_per_block(size)
    for number, (_, row) in enumerate(rows.texts(), start=1):
        block.update(json.dumps([row, list(_file_sizes(rows, row))], sort_keys=True, default=_to_json).encode())
        if number % step == 0 or number == size:
            digests, block = digests + block.hexdigest()[:_HEX], hashlib.sha256()
    return digests


def describe_changes(then: str, now: str, rows: Rows, size: int) -> str | None:
    """How the rows differ from the `size` rows of an older digest, as text.

    None if they do not differ, or if the blocks of the two digests have different sizes.

    If the number of rows differs, only the first difference is reported.
    """
    step = _rows_per_block(len(rows))
    if _rows_per_block(size) != step:
        return None
    old, new = ([text[n : n + _HEX] for n in range(0, len(text), _HEX)] for text in (then, now))
    changed = [n for n, one in enumerate(new) if n >= len(old) or old[n] != one]
    if not changed:
        return None
    first, last = changed[0] * step, min(changed[0] * step + step, len(rows)) - 1
    place = rows.source.place(first) + ("" if first == last else f" to {rows.source.place(last)}")
    if len(old) != len(new):
        return f"the first difference is at {place}"
    kind = "rows" if step == 1 else f"blocks of {step} rows"
    return f"{len(changed)} of {len(new)} {kind} changed, the first is {place}"


def digest_images(rows: Rows, i: int) -> str:
    """A digest of the input images of row i as stored: of each the size and the first 64 KiB; empty without images."""
    raw, digest = rows.source.read(i), hashlib.sha256()
    values = [raw.get(rows.renames.get(column, column)) for column in ("image", "images")]
    images = [one for value in values if value is not None for one in (value if isinstance(value, list) else [value])]
    for image in images:
        size, content = image_content(image, rows.source.folder, _IMAGE_BYTES)
        digest.update(f"{size}:".encode() + content)
    return digest.hexdigest() if images else ""


def _rows_per_block(size: int) -> int:
    return -(-size // BLOCKS)


def _file_sizes(rows: Rows, row: dict[str, Any]) -> Iterator[int]:
    for column in sorted(rows.image_columns | rows.image_list_columns):
        for value in row[column] if isinstance(row.get(column), list) else [row.get(column)]:
            if isinstance(value, str) and len(value) < 500:  # longer ones are base64
                yield _file_size(value, rows.source.folder)


def _file_size(value: str, folder: Path) -> int:
    """In bytes; -1 for anything but the path of a file: base64, a URL, a user (`~name`) that does not exist."""
    try:
        file = image_path(value, folder)
        return file.stat().st_size if file.is_file() else -1
    except (OSError, RuntimeError, ValueError):
        return -1


def _to_json(value: Any) -> str:
    return hashlib.sha256(value).hexdigest() if isinstance(value, bytes) else repr(value)
