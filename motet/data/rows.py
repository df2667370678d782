"""Rows of a dataset as tasks: columns renamed, images read."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Any

from PIL import Image

from motet.config.schema import DataConfig
from motet.core.errors import CORRECT_ROW, ConfigError, DataError
from motet.core.images import check_image, is_image_file, read_image
from motet.core.printable import printable
from motet.core.registry import did_you_mean
from motet.core.task import COLUMNS_WITH_IMAGES, Task
from motet.data.chats import read_chat, read_images
from motet.data.sources import CONVERSATIONS, MIXTURE, Source, open_source

CHECK_SECONDS = 30
"""Time limit of the check before a run; 100,000 rows with an image file each take about 10 s."""
MAX_FAULTS = 10
"""The check of rows ends after this many invalid ones."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Random access to the rows of a dataset. `columns` are motet's names; `size` None means infinite.

    Images in `image_columns` (one each: `image`, SFT targets, columns of image type) and in `image_list_columns`
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
        """Whether the rows are generated on access, from a seed."""
        return self.source.generated

    def __len__(self) -> int:
        if self.size is None:
            raise TypeError(f"{self.source.name} is infinite: it has no length (`size` is None)")
        return self.size

    def __iter__(self) -> Iterator[Task]:
        """All tasks in the order of the file; infinite when the rows are."""
        return (self.task(i) for i in (count() if self.size is None else range(self.size)))

    def row(self, i: int) -> dict[str, Any]:
        """Row i under motet's column names. Raises DataError for an unreadable image or an invalid prompt."""
        return self._read(i, _with_row_fix(read_image))

    def texts(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """The location and the columns of every row, without images stored in the row; nothing for infinite rows."""
        for i, raw in enumerate(islice(self.source.texts(), self.size)):
            yield self.source.place(i), self._renamed(raw)

    def task(self, i: int, *, index: int | None = None) -> Task:
        """Row i as a task; `index` identifies it within the run (default: i).

        Raises DataError also for an invalid chat, or one whose number of image placeholders differs from the row's
        images.
        """
        return self._as_task(i, self.row(i), index)

    def check(self, i: int) -> None:
        """Raise what `task` would, as far as possible without decoding the images."""
        self._as_task(i, self._read(i, _with_row_fix(_check_only)), None)

    def _as_task(self, i: int, row: dict[str, Any], index: int | None) -> Task:
        task = Task(index=i if index is None else index, columns=row, place=self.source.place(i))
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
            if isinstance(content, list) and content and all(isinstance(one, str) for one in content):
                row[column] = content = content[0]  # several wordings of the same text
            if not isinstance(content, str | list) or not content:
                raise DataError(
                    f"{where}, contains {content!r:.80}, expected a text or chat messages.",
                    fix=f"fill it in, or map another column with data.columns.{column}=NAME (there is: "
                    f"{', '.join(self.columns)}).",
                )
            if isinstance(content, list):
                row[column] = read_chat(content, partial(read, folder=folder, where=where))
        return row

    def _renamed(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        renamed = set(self.renames.values())
        row = {name: value for name, value in raw.items() if name not in renamed}
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
    """Open a dataset and check that it has the columns that the scenario and the rewards need.

    `seed` is the shapes world's; `image_columns` are further columns with one image each (SFT targets);
    `check` False skips the check of all rows.
    Raises DataError when the data cannot be opened, is empty or lacks a column; ConfigError for contradictory settings.
    """
    if config.source == MIXTURE:
        from motet.data.mixture import open_mixture  # it makes Rows

        settings: dict[str, Any] = {"seed": seed, "image_columns": image_columns, "check": check}
        return open_mixture(config, seed, lambda part: open_rows(part, columns_needed, **settings))
    images = {"image", *image_columns} - {"images"}
    raw_images = {config.columns.get(column, column) for column in (*images, "images")}
    source = open_source(config, seed, raw_images)
    if source.size == 0:
        raise DataError(f"data.source={config.source!r} has no rows.", fix="give a source with at least one row.")
    for new, old in config.columns.items():
        if old not in source.columns:
            raise DataError(
                f"data.columns.{new}={old!r} is not a column of {source.name}; it has: {', '.join(source.columns)}."
                f"{did_you_mean(old, source.columns)}",
                fix=f"set data.columns.{new} to one of them.",
            )
    taken = set(config.columns.values())
    columns = tuple(dict.fromkeys([*(c for c in source.columns if c not in taken), *config.columns]))
    _check_columns(columns_needed, columns, source)
    if config.size is not None and source.size is not None and config.size > source.size:
        raise ConfigError(
            f"data.size={config.size}, but {source.name} has {source.size} rows.",
            fix="lower data.size, or leave it out to use all rows.",
        )
    size = source.size if config.size is None else config.size
    conversations = frozenset(CONVERSATIONS) & frozenset(columns_needed)
    lists = {"images"}
    for old, several in source.images.items():
        names = [new for new, renamed in config.columns.items() if renamed == old] or [old]
        (lists if several else images).update(names)
    rows = Rows(
        source, columns, size, dict(config.columns), frozenset(images), frozenset(lists - images), conversations
    )
    if check and not source.generated:
        check_rows(rows)
    return rows


def check_rows(rows: Rows, check: Callable[[int], object] | None = None) -> None:
    """Check every row before a run, so that it does not stop hours later. Raises DataError for the invalid rows.

    `check` is called with the number of each row (default: `rows.check`). After CHECK_SECONDS the check ends with a
    message on stderr; the other rows are checked when a step uses them.
    """
    start, faults = time.monotonic(), list[DataError]()
    for i in range(len(rows)):
        if time.monotonic() - start > CHECK_SECONDS:
            text = (
                f"motet: the first {i:,} of {len(rows):,} rows of {rows.source.name} were checked in {CHECK_SECONDS} s;"
                " the others are checked when a step uses them."
            )
            print(printable(text), file=sys.stderr)
            break
        try:
            (check or rows.check)(i)
        except DataError as error:
            faults.append(error)
            if len(faults) == MAX_FAULTS:
                break
    if len(faults) > 1:
        problems = " ".join(f"({n}) {one.problem}" for n, one in enumerate(faults, start=1))
        count = f"at least {MAX_FAULTS}" if len(faults) == MAX_FAULTS else len(faults)
        fixes = " ".join(f"({n}) {fix}" for n, fix in _numbered(one.fix for one in faults))
        raise DataError(f"{rows.source.name} has {count} invalid rows: {problems}", fix=fixes) from faults[0]
    if faults:
        raise faults[0]


def _numbered(fixes: Iterable[str]) -> list[tuple[str, str]]:
    """Different fixes in order, each with the numbers of the faults that it belongs to."""
    numbers: dict[str, list[int]] = {}
    for n, fix in enumerate(fixes, start=1):
        numbers.setdefault(fix, []).append(n)
    return [(", ".join(map(str, own)), fix) for fix, own in numbers.items()]


def warn_unused_images(rows: Rows, read: Collection[str]) -> None:
    """Warn on stderr if the first row has images, or a column with the path of one, that no conversation uses.

    `read` are the columns that the scenario, the SFT targets and the rewards name.
    """
    if rows.generated or not rows.conversations or {"image", "images"} & set(read):
        return
    task = rows.task(0)
    if task.images and not any(task.conversation(column).images for column in rows.conversations):
        columns = " and ".join(sorted(rows.conversations))
        text = (
            f"motet: the rows of {rows.source.name} have images that are not used: {columns} has no placeholder "
            "for them. Write <image> where an image belongs."
        )
        print(printable(text), file=sys.stderr)
    shown = sorted(rows.conversations & set(COLUMNS_WITH_IMAGES))
    if shown and not any(task.conversation(column).images for column in rows.conversations):
        for column in rows.columns:
            if column not in read and is_image_file(task.columns.get(column), rows.source.folder):
                text = (
                    f"motet: the column {column!r} of {rows.source.name} names image files, but {' and '.join(shown)} "
                    f"is asked without an image. If it belongs to it, set data.columns.image={column}."
                )
                print(printable(text), file=sys.stderr)


def _with_row_fix(read: Callable[..., Image.Image]) -> Callable[..., Image.Image]:
    """The same reader, with the fix for a row added to its errors."""

    def read_with_fix(value: Any, folder: Path, where: str) -> Image.Image:
        try:
            return read(value, folder, where)
        except DataError as error:
            raise DataError(error.problem, fix=f"{error.fix} Or {CORRECT_ROW}") from error

    return read_with_fix


def _check_only(value: Any, folder: Path, where: str) -> Image.Image:
    check_image(value, folder, where)
    return _PLACEHOLDER


_PLACEHOLDER = Image.new("RGB", (1, 1))


def _check_columns(needed: Collection[str], columns: tuple[str, ...], source: Source) -> None:
    """Raise DataError for a missing column; `image` and `images` are equivalent, as in `Task.images`."""
    for column in needed:
        either = ("image", "images") if column in ("image", "images") else (column,)
        if not set(either) & set(columns):
            hint = did_you_mean(column, columns)
            raise DataError(
                f"{source.name} has no column {column!r}; it has: {', '.join(columns)}.{hint}",
                fix=f"say which column it is with data.columns.{column}=NAME.",
            )
