"""Ctrl-C that loses nothing: the first asks the run to stop after its step and save, the second stops at once."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

_NOTICE = b"\nFinishing this step and saving; press Ctrl-C again to stop at once without saving.\n"


class Stopped(Exception):
    """The user stopped a run; the message says what was saved and how to go on."""


class Interrupt:
    """While active, SIGINT and SIGTERM set `asked` and end nothing; another SIGINT raises KeyboardInterrupt.

    Outside the main thread, where Python delivers no signals, it is inert.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.asked:
            os.write(2, _NOTICE)  # not sys.stderr: a handler may run in the middle of a write to it
        self.asked = True
