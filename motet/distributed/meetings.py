"""Where the processes of a run wait for each other, and learn of each other's errors: a few keys in a TCPStore.

A collective that one process never joins blocks the others without a word. So processes meet here first: at the end of
every part of a step in which they work apart. Whoever waits there sees the error of a process that failed, and can say
which process did not come and what it was doing.
"""

from __future__ import annotations

import datetime
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch.distributed import Store, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from motet.core.errors import ProcessError

T = TypeVar("T")

FAILED, LEFT, GONE = "failed", "left", "gone"
CONNECT_LIMIT = datetime.timedelta(seconds=60)
SIGNS_OF_LOSS = ("timed out waiting", "connection closed", "reset by peer", "broken pipe", "pair closure", "nccl")
"""Parts of the messages of collectives that one process did not join."""
FAREWELL_SECONDS, FAREWELL_AFTER_ERROR = 60.0, 5.0
"""How long process 0, which holds the store, stays for the others at the end."""


class Meetings:
    """The meetings of one process; those of all processes count alike, so that the n-th of each is one meeting."""

    def __init__(self, store: Store, rank: int, size: int, timeout: float) -> None:
        self.store, self.rank, self.size, self.timeout = store, rank, size, timeout
        self.number, self.phase = 0, "at the start"
        self._main_is_late = False

    def enter(self, phase: str) -> None:
        """Say what this process does until the next meeting."""
        self.phase = phase
        self._ask(lambda: self.store.set(f"phase/{self.rank}", json.dumps([self.number, phase])))

    def meet(self) -> None:
        """Wait for all processes. Raises ProcessError where one has failed, or does not come within the timeout."""
        number, all_here = self.number, f"all/{self.number}"
        self.number += 1
        self.enter(f"after {self.phase.removeprefix('in ')}")
        if self._ask(lambda: self.store.add(f"here/{number}", 1)) == self.size:
            self.check()  # someone may have waited too long
            self._ask(lambda: self.store.set(all_here, "1"))
            for key in (f"here/{number - 1}", f"all/{number - 1}"):  # everyone has passed it
                self._ask(lambda key=key: self.store.delete_key(key))
        started = time.monotonic()
        while not self._ask(lambda: self.store.check([all_here])):
            self.check()
            waited = time.monotonic() - started
            if waited > self.timeout:
                raise self._late(number)
            time.sleep(min(0.1, 0.001 + waited / 20))

    def check(self) -> None:
        """Raise ProcessError if another process has failed."""
        failure = self.failure
        if failure is not None and failure[0] != self.rank:
            raise _failed(*failure)

    @property
    def failure(self) -> tuple[int, str, str] | None:
        """The rank, phase and message of the first process that failed."""
        if not self._ask(lambda: self.store.check([FAILED])):
            return None
        rank, phase, text = json.loads(self._ask(lambda: self.store.get(FAILED)))
        return rank, phase, text

    def fail(self, error: BaseException) -> None:
        """Tell the others of an error of this process, unless they know of one already."""
        told = json.dumps([self.rank, self.phase, f"{type(error).__name__}: {error}"])
        self._ask(lambda: self.store.compare_set(FAILED, "", told))

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Around a collective: what it raises when a process is gone or late, as a ProcessError."""
        try:
            yield
        except RuntimeError as error:
            explained = self.explain(error)
            if explained is None:
                raise
            raise explained from error

    def explain(self, error: RuntimeError) -> ProcessError | None:
        """What a collective's error means; None for an error of another sort, unless another process has failed."""
        failure = self.failure
        if failure is not None and failure[0] != self.rank:
            return _failed(*failure)
        text = str(error).lower()
        if not any(sign in text for sign in SIGNS_OF_LOSS):
            return None
        others = ", ".join(f"process {rank} {phase}" for rank, (_, phase) in self._phases() if rank != self.rank)
        return ProcessError(
            f"Process {self.rank} lost the others {self.phase}: {str(error).splitlines()[0]} (Last seen: {others}.)",
            fix="see the messages of the other processes; resume from the newest checkpoint.",
        )

    def leave(self, error: BaseException | None) -> str | None:
        """The end of a run. After an error the others wait until rank 0 has saved the last whole step.

        A launcher ends all processes as soon as one is gone. Returns the error that process 0 reports, if it has ended.
        """
        if self.rank == 0:
            self._ask(lambda: self.store.set(LEFT, "" if error is None else str(error)))
            seconds = FAREWELL_SECONDS if error is None else FAREWELL_AFTER_ERROR
            self._wait(lambda: self.store.add(GONE, 0) >= self.size - 1, seconds)
            return None
        seconds = 0.0 if error is None or self._main_is_late else self.timeout
        try:
            left = self._wait(lambda: self.store.check([LEFT]), seconds)
            told = self._ask(lambda: self.store.get(LEFT)).decode() if left else None
            self._ask(lambda: self.store.add(GONE, 1))
        except ProcessError:  # process 0 has gone
            return None
        return told or None

    def has_ended(self) -> bool:
        """Whether process 0 has left the run, or cannot be reached."""
        try:
            return self._ask(lambda: self.store.check([LEFT]))
        except ProcessError:
            return True

    def _wait(self, reached: Callable[[], bool], seconds: float) -> bool:
        """Whether it was reached within some seconds."""
        deadline = time.monotonic() + seconds
        while not self._ask(reached):
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

    def _late(self, number: int) -> ProcessError:
        late = [f"process {rank} {phase}" for rank, (at, phase) in self._phases() if at <= number]
        self._main_is_late = any(text.startswith("process 0 ") for text in late)
        error = ProcessError(
            f"{', '.join(late).capitalize()} did not finish within {self.timeout:g} s of the others.",
            fix="look for what it waits for (a reward's server, a slow disk), or raise --timeout.",
        )
        self.fail(error)
        return error

    def _phases(self) -> Iterator[tuple[int, tuple[int, str]]]:
        """Of every process: the number of its next meeting, and what it does until then."""
        for rank in range(self.size):
            key = f"phase/{rank}"
            known = self._ask(lambda key=key: self.store.check([key]))
            yield rank, tuple(json.loads(self._ask(lambda key=key: self.store.get(key)))) if known else (0, "starting")

    def _ask(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except RuntimeError as error:  # torch's DistError
            raise ProcessError(
                f"Process {self.rank} lost the connection to process 0, after {self.phase}.",
                fix="see the message of process 0.",
            ) from error


def _failed(rank: int, phase: str, text: str) -> ProcessError:
    return ProcessError(f"Process {rank} failed {phase}: {text}", fix="see its own message.")


def host_store() -> tuple[Store, int]:
    """A store of the run's own in process 0, and its port."""
    store = TCPStore(_host(), 0, is_master=True, timeout=CONNECT_LIMIT, wait_for_workers=False)
    return store, store.port


def connect_store(port: int) -> Store:
    """A connection of another process to it."""
    return TCPStore(_host(), port, is_master=False, timeout=CONNECT_LIMIT, wait_for_workers=False)


def _host() -> str:
    return os.environ.get("MASTER_ADDR", "127.0.0.1")
