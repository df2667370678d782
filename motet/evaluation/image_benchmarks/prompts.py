"""The prompts of a benchmark, from its own files or from a dataset of the hub."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from motet.config import DataConfig
from motet.core.errors import DataError, MotetError
from motet.data import open_rows


@dataclass(frozen=True)
class Prompt:
    """One prompt. `name` is that of its files, `row` what the benchmark's file says, `place` where it says it."""

    name: str
    text: str
    row: Mapping[str, Any]
    place: str


def read_benchmark(
    sources: Sequence[str], split: str, columns: Collection[str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The place and the content of every row of files or hub datasets that must have these columns.

    Raises DataError and ConfigError that name `eval.suite.prompts`.
    """
    for source in sources:
        try:
            rows = open_rows(DataConfig(source=source, split=split), columns, check=False)
            yield from rows.texts()
        except MotetError as error:
            raise type(error)(f"eval.suite.prompts={source!r}: {error.problem}", fix=error.fix) from error


def text_of(row: Mapping[str, Any], column: str, place: str) -> str:
    """A text that must not be empty. Raises DataError."""
    value = row.get(column)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{place}: {column} is {value!r:.80}, expected a text.", fix="use the benchmark's own file.")
    return value
