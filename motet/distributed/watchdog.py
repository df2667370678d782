"""End a process that hangs after the run has failed elsewhere: in a reward that waits, or in a collective."""

from __future__ import annotations

import atexit
import os
import threading

from motet.distributed.meetings import Meetings

PERIOD, GRACE = 1.0, 5.0
"""Seconds between two looks, and those that a process has to end by itself."""


class Watchdog:
    """A thread beside the run. `meetings` has a connection of its own: that of the run may be waiting."""

    def __init__(self, meetings: Meetings) -> None:
        self.meetings = meetings
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """The process is about to end. Waits for the thread, which would abort Python's end from within torch."""
        self._left.set()
        self._thread.join(GRACE)
        atexit.unregister(self.stop)

    def _watch(self) -> None:
        while not self._left.wait(PERIOD):
            if self.meetings.has_ended() and not self._left.wait(GRACE):
                text = f"\nmotet [rank {self.meetings.rank}]: ended while it hung: process 0 has ended the run.\n"
                os.write(2, text.encode())
                os._exit(1)
