"""Standard output that can fail without ending a run: a closed pipe, a terminal that went away, a full disk.

What a run shows is optional; the results are in its folder.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


class _Steady:
    """A text stream whose writes never raise. All else is the stream's own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # a terminal that knows fewer characters, half a surrogate pair
            encoding = getattr(self._stream, "encoding", None) or "ascii"
            self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError):  # ValueError: it is closed
            pass
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def settle(self) -> None:
        """If what is buffered cannot be written, let it go: Python would complain about it on exit."""
        try:
            self._stream.flush()
        except ValueError:
            pass
        except OSError:
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nothing:
                os.dup2(nothing.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def steady_output() -> Iterator[None]:
    """While active, writing to stdout or stderr never raises, whatever became of them."""
    before = sys.stdout, sys.stderr
    steady = [None if stream is None else _Steady(stream) for stream in before]
    sys.stdout, sys.stderr = steady  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in steady:
            if stream is not None:
                stream.settle()


def open_standard_streams() -> None:
    """Give the null device to a standard stream that the process was started without (`2>&-`).

    Else the next file that is opened takes its number, and what is written for people ends up in it.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  it stays open
