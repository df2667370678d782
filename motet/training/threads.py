"""CPU threads beside other work: fewer while other processes compete for the processor, all again afterwards.

The threads of a parallel product wait for each other many times a millisecond, so one that has to share its core holds
all of them up: two threads beside one busy process took four times as long as alone, one thread 1.4 times
(docs/lab_notes.md). The number changes only where `adapt` is called, between steps and batches.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch

CROWDED = 0.25
"""Threads that waited for a processor, on average over the time between two calls, from which there are too many."""
SHORTEST = 0.5
"""Seconds that are looked at, at least."""
PATIENCE, LONGEST_PATIENCE = 20.0, 80.0
"""Seconds without competition after which all threads are tried again; doubled as long as that was too early."""


@contextmanager
def same_threads() -> Generator[None]:
    """Afterwards torch has as many threads as before, whatever was set inside: the next stage of a plan has its own."""
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class ThreadTuner:
    """Sets torch's number of threads, between one and what it is now. Inert where Linux's `schedstat` is missing.

    `tasks` is the folder in which the kernel tells of this process's threads.
    """

    def __init__(self, tasks: Path = Path("/proc/self/task")) -> None:
        self.tasks = tasks
        self.most = torch.get_num_threads()
        self._patience, self._calm = PATIENCE, 0.0
        self._given_back = -math.inf  # when all threads were last given back
        self._then, self._waited = time.monotonic(), self._waiting_seconds()

    def adapt(self) -> None:
        """Take threads away if they had to wait since the last call; give them back after a calm while."""
        now, waited = time.monotonic(), self._waiting_seconds()
        seconds = now - self._then
        if waited is None or self._waited is None or self.most == 1 or seconds < SHORTEST:
            return
        waiting = (waited - self._waited) / seconds
        threads = torch.get_num_threads()
        if waiting > CROWDED and threads > 1:
            early = now - self._given_back < self._patience
            self._patience = min(2 * self._patience, LONGEST_PATIENCE) if early else PATIENCE
            self._calm = 0.0
            torch.set_num_threads(max(1, threads - math.ceil(waiting)))
        elif threads < self.most:
            self._calm = 0.0 if waiting > CROWDED else self._calm + seconds
            if self._calm >= self._patience:
                torch.set_num_threads(self.most)
                self._given_back = now
        self._then, self._waited = time.monotonic(), self._waiting_seconds()

    def _waiting_seconds(self) -> float | None:
        """How long the threads of this process have been ready to run and did not, added up; None: not known."""
        try:
            lines = [(task / "schedstat").read_text() for task in self.tasks.iterdir()]
            return sum(int(line.split()[1]) for line in lines) / 1e9
        except (OSError, ValueError, IndexError):
            return None
