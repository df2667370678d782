"""Work on one thread in the order in which it was given: rollouts of actors, and rewards of steps that are ahead."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")
CLOSING = 5.0
"""Seconds to wait for the work that is under way when a run ends with an error."""


@dataclass(eq=False)
class BackgroundWork(Generic[T]):
    """Work that is under way. `seconds`: how long it took."""

    future: Future[T] = field(default_factory=Future[T])
    seconds: float = 0.0

    def result(self) -> T:
        """Wait for what it returned. Raises what it raised."""
        return self.future.result()


class Background:
    """One thread, started with the first work. `closing`: seconds that `close` waits for it."""

    def __init__(self, closing: float = CLOSING) -> None:
        self._closing = closing
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def start(self, prepare: Callable[[], Any], work: Callable[[Any], T]) -> BackgroundWork[T]:
        """Call `work` with what `prepare` returns; only `work` counts in `seconds`."""
        task: BackgroundWork[T] = BackgroundWork()

        def run() -> None:
            try:
                prepared, began = prepare(), time.monotonic()
                done = work(prepared)
                task.seconds = time.monotonic() - began
                task.future.set_result(done)
            except BaseException as error:  # raised where the result is waited for
                task.future.set_exception(error)

        if self._thread is None:
            self._thread = threading.Thread(target=self._work, daemon=True)
            self._thread.start()
        self._queue.put(run)
        return task

    def close(self) -> None:
        """End the thread."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(self._closing)

    def _work(self) -> None:
        while (run := self._queue.get()) is not None:
            run()
