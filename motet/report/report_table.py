"""A table of what was found, for a terminal of any width and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions
from rich.markup import escape
from rich.table import Table

TEXT_COLUMNS = ("stage", "policy", "credit", "reward", "compared")
"""Columns of words: on the left, folded where space is short. The others are numbers."""
HOIST_IF_CONSTANT = ("policy", "seed", "credit", "trajectories", "reward", "rows")
"""Columns that are said once, below the table, where all rows agree."""
DROP_WHEN_NARROW = ("rows", "trajectories", "credit", "policy", "greedy")
"""Columns that a terminal too narrow for all of them goes without, in this order."""


@dataclass(frozen=True)
class Sheet:
    """A table before it has a form: print it to a console, or take its `markdown()`."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """As many columns as the width has room for; what is left out is named."""
        kept, said = self._parted()
        spare = [name for name in DROP_WHEN_NARROW if name in kept]
        left_out: list[str] = []
        while spare and self._width(kept) > options.max_width:
            left_out.append(spare.pop(0))
            kept.remove(left_out[-1])
        notes = [said, f"too narrow for: {', '.join(left_out)}" if left_out else ""]
        caption = "\n".join(note for note in notes if note)
        table = Table(title=self.title, title_justify="left", caption=caption or None, caption_justify="left")
        for heading in kept:
            words = heading in TEXT_COLUMNS
            table.add_column(heading, justify="left" if words else "right", overflow="fold", no_wrap=not words)
        for row in self._of(kept):
            table.add_row(*map(escape, row))
        yield table

    def markdown(self) -> str:
        """All columns; title and what is said once are paragraphs."""
        kept, said = self._parted()
        lines = [kept, ["---"] * len(kept), *self._of(kept)]
        cells = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
        return f"{self.title}\n\n" + "".join(f"| {line} |\n" for line in cells) + (f"\n{said}\n" if said else "")

    def _parted(self) -> tuple[list[str], str]:
        """Headings without those that all rows agree on, and the latter in words."""
        values = dict(zip(self.headings, zip(*self.rows, strict=True), strict=True))
        alike = [name for name in self.headings if name in HOIST_IF_CONSTANT and len(set(values[name])) == 1]
        kept = [name for name in self.headings if name not in alike]
        return kept, "; ".join(f"{name}: {values[name][0]}" for name in alike)

    def _of(self, kept: Iterable[str]) -> list[list[str]]:
        places = [self.headings.index(name) for name in kept]
        return [[row[place] for place in places] for row in self.rows]

    def _width(self, kept: list[str]) -> int:
        """Characters of a line with nothing folded: each column has a space on both sides and a border."""
        return 1 + sum(3 + max(map(len, column)) for column in zip(kept, *self._of(kept), strict=True))
