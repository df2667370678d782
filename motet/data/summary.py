"""A summary of all rows: how many have images, and which lack what the others have."""

from __future__ import annotations

from collections.abc import Collection

from motet.data.rows import Rows, check_rows

MAX_PLACES = 5
"""Most rows that a line names."""


def summarize_rows(rows: Rows, golds: Collection[str]) -> list[str]:
    """One line with the number of rows, and a warning for images and for texts of `golds` that only some rows lack.

    Images are decoded, within the time limit of `check_rows`. Raises DataError for invalid rows. Nothing for generated
    rows and streams.
    """
    if rows.size is None or rows.generated:
        return []
    read: list[int] = []
    without: list[int] = []
    empty: dict[str, list[int]] = {column: [] for column in golds}

    def look(i: int) -> None:
        task = rows.task(i)
        read.append(i)
        if not task.images:
            without.append(i)
        for column, own in empty.items():
            value = task.columns.get(column)
            if value is None or (isinstance(value, str) and not value.strip()):
                own.append(i)

    check_rows(rows, look)
    shown = len(read) - len(without)
    which = f"{shown:,}" if len(read) == len(rows) else f"of the first {len(read):,}, {shown:,}"
    lines = [f"{len(rows):,} rows of {rows.source.name}; {which} with an image."]
    if shown and without:
        lines.append(f"Warning: {_count(without)} no image, the others have one: {_places(rows, without)}.")
    for column, own in empty.items():
        if own and len(own) < len(read):
            lines.append(f"Warning: {_count(own)} nothing in the column {column!r}: {_places(rows, own)}.")
    return lines


def _count(rows: list[int]) -> str:
    return "1 row has" if len(rows) == 1 else f"{len(rows):,} rows have"


def _places(rows: Rows, which: list[int]) -> str:
    names = [rows.source.place(i).removesuffix(f" of {rows.source.name}") for i in which[:MAX_PLACES]]
    return ", ".join(names) + (", ..." if len(which) > MAX_PLACES else "")
