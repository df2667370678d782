"""The runs of a sweep or a benchmark, one after another: which one it is, and the time left."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.text import Text

from motet.report.progress import format_seconds

_SKIPPED_SECONDS = 1.0
"""A run that takes less had been finished before; it says nothing about the others."""


class RunCount:
    """Counts `total` runs."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total = console, total
        self._started = 0
        self._seconds: list[float] = []

    @contextmanager
    def run(self, name: str) -> Iterator[None]:
        """The next run: prints its number and name, and how long it and the remaining ones take, by the mean so far."""
        parts = [f"{self._started + 1}/{self.total}", name]
        if self._seconds:
            left = statistics.fmean(self._seconds) * (self.total - self._started)
            parts.append(f"about {format_seconds(left)} left")
        self.console.rule(Text("  ".join(parts)))
        self._started += 1
        began = time.monotonic()
        yield
        seconds = time.monotonic() - began
        if seconds >= _SKIPPED_SECONDS:
            self._seconds.append(seconds)
