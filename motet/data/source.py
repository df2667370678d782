"""What every source of data is to its reader: raw rows by number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from motet.data.files import Row


@dataclass(frozen=True, eq=False)
class Source:
    """Random access to raw rows: their columns as stored, images not yet read.

    `size` None: infinite. `folder` is what path strings of images are relative to: that of the file or folder with
    the rows, the current one for a hub id. `place(i)` is the location of row i, for messages. `texts()` are all rows in
    order, without images stored in them. `images` are columns of image type: True for lists.
    """

    name: str
    columns: tuple[str, ...]
    size: int | None
    folder: Path
    read: Callable[[int], Row]
    place: Callable[[int], str]
    texts: Callable[[], Iterator[Row]]
    images: Mapping[str, bool] = field(default_factory=dict[str, bool])
    generated: bool = False
