"""A generation on a thread of its own, whose intermediate results are yielded while it runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")
SECONDS_WITHOUT_RESULT = 1.0
"""How long an iterator waits for a result: whoever reads it can only close it in between."""


class Report:
    """Takes intermediate results of work, and ends it when nobody waits for it."""

    def __init__(self) -> None:
        self.results: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self.abandoned = threading.Event()

    def __call__(self, result: Any) -> None:
        """Report an intermediate result. Raises Abandoned when nobody waits for it."""
        self.check()
        self.results.put(("reported", result))

    def check(self) -> None:
        """Raise Abandoned when nobody waits for the work."""
        if self.abandoned.is_set():
            raise Abandoned


def while_running(work: Callable[[Report], T]) -> Iterator[T | None]:
    """Call `work(report)` on a thread; yields what it reports, the newest where there are several, then its result.

    Yields None every second without any, so that the iterator can be closed. Raises what `work` raises. After it is
    closed, `report` and `report.check` raise Abandoned, which ends a generation.
    """
    report = Report()
    results = report.results

    def run() -> None:
        try:
            results.put(("returned", work(report)))
        except BaseException as error:  # raised again on the caller's thread
            results.put(("raised", error))

    thread = threading.Thread(target=run, name="studio generation", daemon=True)
    thread.start()
    try:
        while True:
            try:
                state, result = results.get(timeout=SECONDS_WITHOUT_RESULT)
            except Empty:
                yield None
                continue
            while state == "reported" and not results.empty():
                state, result = results.get()
            if state == "raised":
                raise result
            yield result
            if state == "returned":
                return
    finally:
        report.abandoned.set()
        thread.join()


class Abandoned(Exception):
    """Nobody waits for the generation any more."""
