"""Rows of data, renamed and with their pictures read, as tasks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

from PIL import Image

from motet.config.schema import DataConfig
from motet.core.errors import CORRECT_ROW, ConfigError, DataError
from motet.core.images import check_image, read_image
from motet.core.printable import printable
from motet.core.registry import did_you_mean
from motet.core.task import Task
from motet.data.chats import read_chat, read_images
from motet.data.sources import CONVERSATIONS, Source, open_source

CHECK_SECONDS = 30
"""How long rows are checked before a run begins; 100,000 rows with a picture file each take about 10 s."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Random access to the rows of a dataset. `columns` are motet's names; `size` None means endless.

    Pictures in `image_columns` (one each: `image`, demonstrations, columns of that type) and in `image_list_columns`
    (`images`, lists of that type) are RGB PIL images.
    """

    source: Source
    columns: tuple[str, ...]
    size: int | None
    renames: Mapping[str, str]
    image_columns: frozenset[str]
    image_list_columns: frozenset[str]
    conversations: frozenset[str]

    @property
    def generated(self) -> bool:
        """Whether the rows are made as they are asked for, by a seed."""
        return self.source.generated

    def __len__(self) -> int:
        if self.size is None:
            raise TypeError(f"{self.source.name} is endless: it has no length (`size` is None)")
        return self.size

    def __iter__(self) -> Iterator[Task]:
        """All tasks in the order of the file; without end when the rows are endless."""
        return (self.task(i) for i in (count() if self.size is None else range(self.size)))

    def row(self, i: int) -> dict[str, Any]:
        """Row i under motet's column names. Raises DataError for an unreadable picture or an unusable prompt."""
        return self._read(i, _of_row(read_image))

    def texts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every row of finite ones: where it stands, and its columns without pictures that are stored in it."""
        for i, raw in enumerate(islice(self.source.texts(), self.size)):
            yield self.source.place(i), self._renamed(raw)

    def task(self, i: int, *, index: int | None = None) -> Task:
        """Row i as a task; `index` names it within the run (default: i). Raises DataError also for a chat that is not
        one, or whose places for pictures are not as many as the row's pictures."""
        return self._as_task(i, self.row(i), index)

    def check(self, i: int) -> None:
        """Raise what `task` would, as far as can be told without decoding the pictures."""
        self._as_task(i, self._read(i, _of_row(_only_look)), None)

    def _as_task(self, i: int, row: dict[str, Any], index: int | None) -> Task:
        task = Task(index=i if index is None else index, columns=row)
        for column in self.conversations:
            try:
                task.conversation(column)
            except DataError as error:
                raise DataError(f"{self._where(i, column)}: {error.problem}", fix=error.fix) from error
        return task

    def _read(self, i: int, read: Callable[..., Image.Image]) -> dict[str, Any]:
        if i < 0 or (self.size is not None and i >= self.size):
            raise IndexError(f"row {i} of {self.size}")
        raw, folder = self.source.read(i), self.source.folder
        row = self._renamed(raw)
        for column in self.image_columns:
            if row.get(column) is not None:
                row[column] = read(row[column], folder, self._where(i, column))
        for column in self.image_list_columns:
            if row.get(column) is not None:
                row[column] = read_images(row[column], partial(read, folder=folder), self._where(i, column))
        for column in self.conversations:
            where, content = self._where(i, column), row.get(column)
            if not isinstance(content, str | list) or not content:
                raise DataError(
                    f"{where}, holds {content!r:.80}, not a text or chat messages.",
                    fix=f"fill it in, or map another column with data.columns.{column}=NAME (there is: "
                    f"{', '.join(self.columns)}).",
                )
            if isinstance(content, list):
                row[column] = read_chat(content, partial(read, folder=folder, where=where))
        return row

    def _renamed(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        taken = set(self.renames.values())
        row = {name: value for name, value in raw.items() if name not in taken}
        return row | {new: raw.get(old) for new, old in self.renames.items()}

    def _where(self, i: int, column: str) -> str:
        return f"{self.source.place(i)}, column {column!r}"


def open_rows(
    config: DataConfig,
    columns_needed: Collection[str] = (),
    *,
    seed: int = 0,
    image_columns: Collection[str] = (),
    check: bool = True,
) -> Rows:
    """Open a dataset and see that it has the columns that the scenario and the rewards need.

    `seed` is the shapes world's; `image_columns` are further columns that hold one picture each (demonstrations);
    `check` False: the rows were checked before.
    Raises DataError when the data cannot be opened, is empty or lacks a column; ConfigError for contradictory settings.
    """
    images = {"image", *image_columns} - {"images"}
    raw_images = {config.columns.get(column, column) for column in (*images, "images")}
    source = open_source(config, seed, raw_images)
    if source.size == 0:
        raise DataError(f"data.source={config.source!r} holds no rows.", fix="give a source with at least one row.")
    for new, old in config.columns.items():
        if old not in source.columns:
            raise DataError(
                f"data.columns.{new}={old!r} is no column of {source.name}; it has: {', '.join(source.columns)}."
                f"{did_you_mean(old, source.columns)}",
                fix=f"set data.columns.{new} to one of them.",
            )
    taken = set(config.columns.values())
    columns = tuple(dict.fromkeys([*(c for c in source.columns if c not in taken), *config.columns]))
    _require(columns_needed, columns, source)
    if config.size is not None and source.size is not None and config.size > source.size:
        raise ConfigError(
            f"data.size={config.size}, but {source.name} has {source.size} rows.",
            fix="lower data.size, or leave it out to use all rows.",
        )
    size = source.size if config.size is None else config.size
    spoken = frozenset(CONVERSATIONS) & frozenset(columns_needed)
    lists = {"images"}
    for old, several in source.images.items():
        names = [new for new, renamed in config.columns.items() if renamed == old] or [old]
        (lists if several else images).update(names)
    rows = Rows(source, columns, size, dict(config.columns), frozenset(images), frozenset(lists - images), spoken)
    if check and not source.generated:
        check_rows(rows)
    return rows


def check_rows(rows: Rows) -> None:
    """Check every row before a run begins, so that it does not stop hours later. Raises DataError for the first fault.

    After CHECK_SECONDS the rest is left for the step that meets it, and a line says so.
    """
    begin = time.monotonic()
    for i in range(len(rows)):
        if time.monotonic() - begin > CHECK_SECONDS:
            text = (
                f"motet: the first {i:,} of {len(rows):,} rows of {rows.source.name} were checked in {CHECK_SECONDS} s;"
                " the others are checked when a step meets them."
            )
            print(printable(text), file=sys.stderr)
            return
        rows.check(i)


def warn_unused_images(rows: Rows, read: Collection[str]) -> None:
    """A line on stderr where the first row has pictures that no conversation shows. `read` are the columns that the
    scenario, its demonstrations and the rewards read by name."""
    if rows.generated or not rows.conversations or {"image", "images"} & set(read):
        return
    task = rows.task(0)
    if task.images and not any(task.conversation(column).images for column in rows.conversations):
        columns = " and ".join(sorted(rows.conversations))
        text = (
            f"motet: the rows of {rows.source.name} have pictures that are not shown: {columns} without a place for "
            "them. Write <image> where a picture belongs."
        )
        print(printable(text), file=sys.stderr)


def _of_row(read: Callable[..., Image.Image]) -> Callable[..., Image.Image]:
    """The same, with what can be done about a row in the fix of its errors."""

    def reading(value: Any, folder: Path, where: str) -> Image.Image:
        try:
            return read(value, folder, where)
        except DataError as error:
            raise DataError(error.problem, fix=f"{error.fix} Or {CORRECT_ROW}") from error

    return reading


def _only_look(value: Any, folder: Path, where: str) -> Image.Image:
    check_image(value, folder, where)
    return _BLANK


_BLANK = Image.new("RGB", (1, 1))


def _require(needed: Collection[str], columns: tuple[str, ...], source: Source) -> None:
    """`image` and `images` stand for each other, as in `Task.images`."""
    for column in needed:
        either = ("image", "images") if column in ("image", "images") else (column,)
        if not set(either) & set(columns):
            hint = did_you_mean(column, columns)
            raise DataError(
                f"{source.name} has no column {column!r}; it has: {', '.join(columns)}.{hint}",
                fix=f"say which column it is with data.columns.{column}=NAME.",
            )
