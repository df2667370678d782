"""Standard output whose failure (closed pipe, closed terminal, full disk) does not end a run.

A run's results are in its folder; what it prints is optional.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


class _SafeStream:
    """A text stream whose writes never raise; everything else is forwarded to the stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # characters that the terminal's encoding lacks, unpaired surrogates
            encoding = getattr(self._stream, "encoding", None) or "ascii"
            self.write(text.encode(encoding, "backslashreplace").decode(encoding))
        except (OSError, ValueError):  # ValueError: the stream is closed
            pass
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def drop_unwritable(self) -> None:
        """Drop buffered text that cannot be written, about which Python would complain at exit."""
        try:
            self._stream.flush()
        except ValueError:
            pass
        except OSError:
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as null:
                os.dup2(null.fileno(), self._stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def safe_output() -> Iterator[None]:
    """In the `with` block, writing to stdout or stderr never raises."""
    before = sys.stdout, sys.stderr
    safe = [None if stream is None else _SafeStream(stream) for stream in before]
    sys.stdout, sys.stderr = safe  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in safe:
            if stream is not None:
                stream.drop_unwritable()


def open_standard_streams() -> None:
    """Open the null device for standard streams that the process was started without (`2>&-`).

    Otherwise the next opened file gets that file descriptor, and messages would be written into it.
    """
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor: this one
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  stays open
