"""One tracker in a thread of its own: what it raises, and how long it takes, never reaches the run."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from motet.core.registry import first_line
from motet.report.trackers.base import Results, RunInfo

MAX_WAITING, MAX_WAITING_SAMPLES = 1024, 16
"""Records that wait for a tracker at most, and those with images among them; further ones are dropped."""


class Delivery:
    """Hands records to a tracker, in order, without waiting for it.

    `keep_id` is called in the thread with the id of a tracker that has started.
    """

    def __init__(self, name: str, tracker: Any, keep_id: Callable[[Any], None]) -> None:
        self.name, self.tracker, self.keep_id = name, tracker, keep_id
        self._waiting: queue.SimpleQueue[tuple[str, tuple[Any, ...]]] = queue.SimpleQueue()
        self._samples = threading.Semaphore(MAX_WAITING_SAMPLES)
        self._problems: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._told: set[str] = set()
        self._taken = self._failed = 0  # records, counted in the tracker's thread
        self._given = self._dropped = 0  # counted in the run's
        self._off = False  # the tracker could not be started
        self._thread = threading.Thread(target=self._run, name=f"motet tracker {name}", daemon=True)

    def start(self, run: RunInfo, resumed: Any) -> None:
        """Start the tracker; `resumed` is its id of the run that is resumed, or None."""
        self._waiting.put(("start", (run, resumed)))
        self._thread.start()

    def put(self, method: str, *arguments: Any) -> None:
        """Hand over a record, or drop it where too many are waiting."""
        self._given += 1
        full = self._waiting.qsize() >= MAX_WAITING
        if self._off or full or (method == "log_samples" and not self._samples.acquire(blocking=False)):
            self._dropped += 1
            if not self._off:
                self._tell("slow", "is slower than the run, and misses what it has no time for")
        else:
            self._waiting.put((method, arguments))

    def problems(self) -> Iterator[str]:
        """What went wrong since the last call; every kind of problem is told once."""
        while not self._problems.empty():
            yield self._problems.get()

    def finish(self, results: Results) -> None:
        """Hand over the end of the run; `wait` waits for it."""
        self._waiting.put(("finish", (results,)))

    def wait(self, seconds: float) -> bool:
        """Wait until the tracker has ended, that long at most. Returns whether it has."""
        self._thread.join(max(seconds, 0.0))
        return not self._thread.is_alive()

    @property
    def lost(self) -> str | None:
        """What is missing at the end of the run; None if nothing is."""
        ended = not self._thread.is_alive()
        late = self._given - self._taken - self._failed - self._dropped
        counts = {"raised an exception": self._failed, "dropped": self._dropped, "not taken in time": late}
        parts = [f"{count} {what}" for what, count in counts.items() if count]
        if parts:
            return f"misses {self._given - self._taken} of {self._given} records ({', '.join(parts)})"
        return None if ended else "did not finish in time, so that its last records may be missing"

    def _run(self) -> None:
        method = ""
        while method != "finish" and not self._off:
            method, arguments = self._waiting.get()
            counts = method not in ("start", "finish")
            try:
                self._call(method, arguments)
                self._taken += counts
            except (Exception, SystemExit) as error:
                self._failed += counts
                then = "it is left out of this run" if method == "start" else "it misses what it raises at"
                self._tell("raises", f"raised {first_line(error)} in {method}(); {then}")
                self._off = method == "start"

    def _call(self, method: str, arguments: tuple[Any, ...]) -> None:
        if method == "log_samples":
            self._samples.release()
        function = getattr(self.tracker, method, None)
        returned = function(*arguments) if function is not None else None
        if method == "start" and returned is not None:
            try:
                self.keep_id(returned)
            except (OSError, TypeError, ValueError) as error:
                self._tell("id", f"has an id that is not saved ({first_line(error)}); a resumed run is a new one there")

    def _tell(self, kind: str, text: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            self._problems.put(text)
