"""Rows of data, renamed and with their pictures read, as tasks."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from motet.config.schema import DataConfig
from motet.data.pictures import read_picture, read_pictures
from motet.data.sources import Source, open_source
from motet.errors import ConfigError, DataError
from motet.lookup import did_you_mean
from motet.task import Task

CONVERSATIONS = ("prompt", "question", "instruction", "inverse")
"""Columns that become conversations: a string or chat messages, never empty in a row that a scenario reads."""


@dataclass(frozen=True, eq=False)
class Rows:
    """Random access to the rows of a dataset. `columns` are motet's names; `size` None means endless.

    Pictures in the columns `image` (one), `images` (several) and `picture_columns` (one each) are RGB PIL images.
    """

    source: Source
    columns: tuple[str, ...]
    size: int | None
    renames: Mapping[str, str]
    picture_columns: frozenset[str]
    conversations: frozenset[str]

    def __len__(self) -> int:
        if self.size is None:
            raise TypeError(f"{self.source.name} is endless: it has no length (`size` is None)")
        return self.size

    def __iter__(self) -> Iterator[Task]:
        """All tasks in the order of the file; without end when the rows are endless."""
        return (self.task(i) for i in (count() if self.size is None else range(self.size)))

    def row(self, i: int) -> dict[str, Any]:
        """Row i under motet's column names. Raises DataError for an unreadable picture or an unusable prompt."""
        if i < 0 or (self.size is not None and i >= self.size):
            raise IndexError(f"row {i} of {self.size}")
        raw = self.source.read(i)
        taken = set(self.renames.values())
        row = {name: value for name, value in raw.items() if name not in taken}
        row |= {new: raw.get(old) for new, old in self.renames.items()}
        for column in self.picture_columns:
            if row.get(column) is not None:
                row[column] = read_picture(row[column], self.source.folder, self._where(i, column))
        if "images" in row:
            row["images"] = read_pictures(row["images"], self.source.folder, self._where(i, "images"))
        for column in self.conversations:
            if not isinstance(row.get(column), str | list) or not row[column]:
                raise DataError(
                    f"{self._where(i, column)}, holds {row.get(column)!r:.80}, not a text or chat messages.",
                    fix="fill it in, remove the row, or map another column with data.columns."
                    f"{column}=NAME (there is: {', '.join(self.columns)}).",
                )
        return row

    def task(self, i: int, *, index: int | None = None) -> Task:
        """Row i as a task; `index` names it within the run (default: i)."""
        return Task(index=i if index is None else index, columns=self.row(i))

    def _where(self, i: int, column: str) -> str:
        return f"{self.source.place(i)}, column {column!r}"


def open_rows(
    config: DataConfig, columns_needed: Collection[str] = (), *, seed: int = 0, picture_columns: Collection[str] = ()
) -> Rows:
    """Open a dataset and see that it has the columns that the scenario and the rewards need.

    `seed` is the shapes world's; `picture_columns` are further columns that hold one picture each (demonstrations).
    Raises DataError when the data cannot be opened, is empty or lacks a column; ConfigError for contradictory settings.
    """
    pictures = {"image", *picture_columns} - {"images"}
    raw_pictures = {config.columns.get(column, column) for column in (*pictures, "images")}
    source = open_source(config, seed, raw_pictures)
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
    return Rows(source, columns, size, dict(config.columns), frozenset(pictures), spoken)


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
