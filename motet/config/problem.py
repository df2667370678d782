"""One thing to correct in a recipe. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from motet.core.printable import printable


@dataclass(frozen=True)
class Problem:
    """One thing to correct: where (a dotted key, empty for the recipe as a whole), what, and how."""

    key: str
    text: str
    fix: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text} Fix: {self.fix}" if self.key else f"{self.text} Fix: {self.fix}"

    @property
    def place(self) -> str:
        """The key in one printable line."""
        return printable(self.key, lines=False)
