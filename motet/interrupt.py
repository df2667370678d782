"""Ctrl-C that loses nothing: the first asks the run to stop after its step and save, the second stops at once.

A terminal that goes away (SIGHUP) and a cluster that wants its machine back (SIGTERM, SIGUSR1) ask as the first does.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Any

_SIGNALS = [
    number for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if (number := getattr(signal, name, None)) is not None
]
"""Those that the system has."""
_NOTICE = b"\nFinishing this step and saving; press Ctrl-C again to stop at once without saving.\n"


class Stopped(Exception):
    """The user stopped a run; the message says what was saved and how to go on."""


class Interrupt:
    """While active, SIGINT, SIGTERM, SIGHUP and SIGUSR1 set `asked` and end nothing; another SIGINT raises
    KeyboardInterrupt.

    A SIGHUP that is ignored (nohup) stays so. Outside the main thread, where Python delivers no signals, it is inert.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
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
            self.asked = True
            with contextlib.suppress(OSError):  # the terminal may be what went away
                os.write(2, _NOTICE)  # not sys.stderr: a handler may run in the middle of a write to it
