"""How many steps a run takes: those of its recipe, or fewer where they would take longer than `run.minutes`."""

from __future__ import annotations

import statistics
import time
from collections import deque

from motet.config import RunConfig

FEWEST, MOST = 8, 16
"""Steps whose median time the estimate is made from."""


class Pace:
    """Steps done and the seconds they took, here and before a resume, and with them the number of steps in all.

    The number is estimated again after every step. While the time suffices it is `run.steps`, whatever the clock says,
    so a run that is fast enough is the same run every time.
    """

    def __init__(self, settings: RunConfig, done: int, seconds: float) -> None:
        self.settings, self.done = settings, done
        self._began = self._last = time.monotonic()
        self._before = seconds
        self._recent: deque[float] = deque([seconds / done] if done >= FEWEST else [], MOST)
        self._needed = 1 if self._recent else FEWEST

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self._before + time.monotonic() - self._began

    @property
    def steps(self) -> int:
        """How many steps the run takes in all, by what is known now."""
        if self.settings.minutes is None:
            return self.settings.steps
        left = 60 * self.settings.minutes - self.seconds
        if left > 0 and len(self._recent) < self._needed:
            return self.settings.steps
        if not self._recent:
            return max(1, self.done)
        return min(self.settings.steps, self.done + max(0, int(left / statistics.median(self._recent))))

    def step_done(self) -> None:
        """Count a step."""
        now = time.monotonic()
        self._recent.append(now - self._last)
        self._last = now
        self.done += 1
