"""The only door to the terminal: what models, files and users wrote is made printable on its way out.

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
    """rich's console; control characters of its own (colours, the bar) pass, those inside of texts do not.

    `print` raises OutputError where nothing can be written any more.
    """

    def print(self, *objects: Any, **settings: Any) -> None:
        """As rich does it."""
        with _written():
            super().print(*objects, **settings)

    def render(self, renderable: Any, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does it, every text made printable."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))


def say(text: object, *, end: str = "\n", error: bool = False) -> None:
    """Print a text, made printable; to standard error with `error`.

    Raises OutputError where it cannot be written; a reader that went away (`| head`) is not an error: BrokenPipeError.
    """
    with _written():
        print(printable(str(text)), end=end, file=sys.stderr if error else sys.stdout, flush=True)


@contextmanager
def _written() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(
            f"The output cannot be printed: {error.strerror or error}.", fix="free some space, or send it elsewhere."
        ) from None
