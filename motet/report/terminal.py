"""All terminal output goes through here: control characters in texts of models, files and users are escaped.

Imports no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleOptions
from rich.segment import Segment

from motet.core.errors import OutputError
from motet.core.printable import printable


class Terminal(Console):
    """rich's console: its own control codes (colours, progress bar) pass, those inside texts are escaped.

    Texts are shown as they are, `[red]` and `:smile:` too: styles are those of rich's objects. `print` raises
    OutputError if the output cannot be written.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, **settings})

    def print(self, *objects: Any, **settings: Any) -> None:
        """As `Console.print`. Raises OutputError."""
        with _as_output_error():
            super().print(*objects, **settings)

    def say(self, line: str) -> None:
        """Print a line as it is, however long; line breaks in it are escaped."""
        self.print(printable(line, lines=False), soft_wrap=True, highlight=False, markup=False)

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As `Console.render`, with control characters in texts escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def say(*lines: object, end: str = "\n", error: bool = False) -> None:
    """Print lines with control characters escaped, line breaks inside a line too; to standard error if `error`.

    Raises OutputError if it cannot be written, BrokenPipeError if the reader has closed the pipe (`| head`).
    """
    with _as_output_error():
        text = "\n".join(printable(str(line), lines=False) for line in lines)
        print(text, end=end, file=sys.stderr if error else sys.stdout, flush=True)


@contextmanager
def _as_output_error() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"The output cannot be printed: {error.strerror or error}.",
            fix="free some disk space, or redirect the output elsewhere.",
        ) from None
