"""A results table that fits terminals of any width and can be written as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.table import Table

TEXT_COLUMNS = ("stage", "policy", "advantage", "reward", "compared")
"""Columns of text: left-aligned and folded in narrow terminals. The others are numbers."""
HOIST_IF_CONSTANT = ("policy", "seed", "advantage", "trajectories", "reward", "rows")
"""Columns that move to a line below the table if all rows have the same value."""
DROP_WHEN_NARROW = ("rows", "trajectories", "advantage", "policy", "greedy")
"""Columns that are hidden, in this order, in a terminal too narrow for all of them."""


@dataclass(frozen=True)
class ReportTable:
    """A table to print to a rich console, or to write as `markdown()`."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """As many columns as fit; the names of hidden ones are given below the table."""
        kept, constants = self._split_constant_columns()
        optional = [name for name in DROP_WHEN_NARROW if name in kept]
        hidden: list[str] = []
        while optional and self._width(kept) > options.max_width:
            hidden.append(optional.pop(0))
            kept.remove(hidden[-1])
        notes = [constants, f"hidden columns: {', '.join(hidden)}" if hidden else ""]
        caption = "\n".join(note for note in notes if note)
        table = Table(title=self.title, title_justify="left", caption=caption or None, caption_justify="left")
        for heading in kept:
            is_text = heading in TEXT_COLUMNS
            table.add_column(heading, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text)
        for row in self._select(kept):
            table.add_row(*row)
        yield table

    def markdown(self) -> str:
        """A Markdown table of all columns, with the title above it and constant columns below it."""
        kept, constants = self._split_constant_columns()
        lines = [kept, ["---"] * len(kept), *self._select(kept)]
        cells = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
        return (
            f"{self.title}\n\n" + "".join(f"| {line} |\n" for line in cells) + (f"\n{constants}\n" if constants else "")
        )

    def _split_constant_columns(self) -> tuple[list[str], str]:
        """The headings to show as columns, and `name: value; ...` of the columns that are constant."""
        values = dict(zip(self.headings, zip(*self.rows, strict=True), strict=True))
        constant = [name for name in self.headings if name in HOIST_IF_CONSTANT and len(set(values[name])) == 1]
        kept = [name for name in self.headings if name not in constant]
        return kept, "; ".join(f"{name}: {values[name][0]}" for name in constant)

    def _select(self, kept: Iterable[str]) -> list[list[str]]:
        indices = [self.headings.index(name) for name in kept]
        return [[row[index] for index in indices] for row in self.rows]

    def _width(self, kept: list[str]) -> int:
        """Characters of an unfolded line: each column has a space on both sides and a border."""

        return 1 + sum(3 + max(map(len, column)) for column in zip(kept, *self._select(kept), strict=True))
