"""How many steps a run takes: those of its recipe, or fewer where they would take longer than `run.minutes`."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque

from motet.config import RunConfig

FEWEST, MOST = 8, 16
"""Steps whose median time the estimate is made from; with fewer, only the next step is estimated."""


class Pace:
    """Steps done and the seconds they took, here and before a resume, and with them the number of steps in all.

    The number is estimated again after every step. While the time suffices it is `run.steps`, whatever the clock says,
    so a run that is fast enough is the same run every time. No step is started that, by the median of the last ones,
    would end after the limit, except the first.
    """

    def __init__(self, settings: RunConfig, done: int, seconds: float) -> None:
        self.settings, self.done = settings, done
        self._began = self._last = time.monotonic()
        self._before = seconds
        self._recent: deque[float] = deque([seconds / done] if done else [], MOST)

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self._before + time.monotonic() - self._began

    @property
    def seconds_left(self) -> float:
        """Seconds until the time limit: negative after it, infinite without one."""
        return math.inf if self.settings.minutes is None else 60 * self.settings.minutes - self.seconds

    @property
    def seconds_per_step(self) -> float | None:
        """The median of the last steps; of the first ones the lower median, since the very first can take longer."""
        if not self._recent:
            return None
        return (statistics.median_low if self.done < FEWEST else statistics.median)(self._recent)

    @property
    def steps(self) -> int:
        """How many steps the run takes in all, by what is known now."""
        left, per_step = self.seconds_left, self.seconds_per_step
        if math.isinf(left):
            return self.settings.steps
        if per_step is None:
            return self.settings.steps if left > 0 else 1
        further = max(0, int(left / per_step))
        if further and self.done < FEWEST:
            return self.settings.steps
        return min(self.settings.steps, self.done + further)

    def start(self) -> None:
        """The first step starts: its time does not include what came before."""
        self._last = time.monotonic()

    def step_done(self) -> None:
        """Count a step."""
        now = time.monotonic()
        self._recent.append(now - self._last)
        self._last = now
        self.done += 1
