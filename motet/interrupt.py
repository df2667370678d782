"""Ctrl-C that loses nothing: the first asks the run to stop after its step and save, the second stops at once."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any


class Interrupt:
    """While active, SIGINT and SIGTERM set `asked` instead of raising; a second SIGINT raises KeyboardInterrupt."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
        sys.stderr.write("\nFinishing this step and saving; press Ctrl-C again to stop at once without saving.\n")
