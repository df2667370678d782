"""Ctrl-C that loses nothing: the first asks the run to stop after its step and save, the second stops at once.

A terminal that goes away (SIGHUP) and a cluster that wants its machine back (SIGTERM, SIGUSR1) ask as the first does.
"""

from __future__ import annotations

import concurrent.futures.thread
import contextlib
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

_SIGNALS = [
    number for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if (number := getattr(signal, name, None)) is not None
]
"""Those that the system has."""
_NOTICE = b"\nFinishing this step and saving; press Ctrl-C again to stop at once without saving.\n"

_GRACE = 3.0
"""Seconds that a KeyboardInterrupt has to come through whatever the run waits for."""


class Stopped(Exception):
    """The user stopped a run; the message says what was saved and how to go on."""


class Interrupt:
    """While active, SIGINT, SIGTERM, SIGHUP and SIGUSR1 set `asked` and end nothing; another SIGINT raises
    KeyboardInterrupt.

    Where that does not come through (a library that catches it, or a reward that waits for its own threads) the process
    ends by itself. A SIGHUP that is ignored (nohup) stays so. Outside the main thread, where Python delivers no
    signals, it is inert.
    """

    asked_for_all = False
    """Whether every run of this process is asked to stop: by what started it, where no signal arrives."""

    def __init__(self) -> None:
        self._asked = False
        self._before: dict[int, Any] = {}
        self._end: threading.Timer | None = None

    @property
    def asked(self) -> bool:
        """Whether the run shall finish its step and save."""
        return self._asked or Interrupt.asked_for_all

    @asked.setter
    def asked(self, value: bool) -> None:
        self._asked = value

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._end is not None:
            self._end.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            if self._end is None:
                self._end = threading.Timer(_GRACE, end_now)
                self._end.daemon = True
                self._end.start()
            raise KeyboardInterrupt
        if not self.asked:
            self.asked = True
            with contextlib.suppress(OSError):  # the terminal may be what went away
                os.write(2, _NOTICE)  # not sys.stderr: a handler may run in the middle of a write to it


def end_now() -> None:
    """End the process as an interrupted one, without waiting for any thread."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # nobody may be reading
            stream.flush()
    os._exit(130)


def threads_hold() -> bool:
    """Whether a thread would keep Python from ending: a reward's pool that still waits for a server, say."""
    pools = getattr(concurrent.futures.thread, "_threads_queues", {})  # these Python waits for, daemons or not
    others = [one for one in threading.enumerate() if one is not threading.main_thread()]
    return any(not one.daemon or one in pools for one in others)
