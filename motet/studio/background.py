"""A generation on a thread of its own, whose intermediate results are yielded while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
Report = Callable[[Any], None]
"""Takes an intermediate result."""


def while_running(work: Callable[[Callable[[T], None]], T]) -> Iterator[T]:
    """Call `work(report)` on a thread; yields what it reports, the newest where there are several, then its result.

    Raises what `work` raises. If the iterator is closed early, `report` raises `Abandoned`, which ends a generation.
    """
    results: SimpleQueue[tuple[str, Any]] = SimpleQueue()
    abandoned = threading.Event()

    def report(result: T) -> None:
        if abandoned.is_set():
            raise Abandoned
        results.put(("reported", result))

    def run() -> None:
        try:
            results.put(("returned", work(report)))
        except BaseException as error:  # raised again on the caller's thread
            results.put(("raised", error))

    thread = threading.Thread(target=run, name="studio generation", daemon=True)
    thread.start()
    try:
        while True:
            state, result = results.get()
            while state == "reported" and not results.empty():
                state, result = results.get()
            if state == "raised":
                raise result
            yield result
            if state == "returned":
                return
    finally:
        abandoned.set()
        thread.join()


class Abandoned(Exception):
    """Nobody waits for the generation any more."""
