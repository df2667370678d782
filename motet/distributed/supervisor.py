"""Training workers as actors: all run the same function; when one dies, all start again from the newest checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from motet.core.errors import ProcessError
from motet.distributed.actor_pool import ActorDied, Backend

MAX_RESTARTS = 3
"""Restarts without a new checkpoint in between; one more is an error."""
INTERVAL = 0.25
"""Seconds between two looks at the workers."""
GRACE = 30.0
"""Seconds beyond the timeout of what a worker itself waits for, so that its own message comes first."""


@dataclass(frozen=True)
class Status:
    """What a worker says while it runs: the output since the last time, as (text, to stderr), and its phase."""

    output: list[tuple[str, bool]]
    phase: str


@dataclass(frozen=True)
class Place:
    """A worker's rank among how many, and where they meet: host and port of rank 0."""

    rank: int
    size: int
    host: str = "127.0.0.1"
    port: int = 0


@dataclass(eq=False)
class _Member:
    rank: int
    actor: Any
    heard: float
    phase: str = "start"

    @property
    def name(self) -> str:
        return f"training worker {self.rank}"


class Supervisor:
    """`size` workers, each an actor around what `make` returns, with the methods `address`, `run`, `status`, `stop`.

    `steps_saved` is the step of the newest checkpoint; `write` prints the workers' output; `stop_asked`: whether they
    are to finish their step and save.
    """

    def __init__(
        self,
        backend: Backend,
        make: Callable[[], Any],
        size: int,
        *,
        steps_saved: Callable[[], int],
        write: Callable[[str, bool], None],
        stop_asked: Callable[[], bool] = lambda: False,
        num_gpus: float = 0.0,
        timeout: float,
    ) -> None:
        self.backend, self.make, self.size = backend, make, size
        self.steps_saved, self.write, self.stop_asked = steps_saved, write, stop_asked
        self.num_gpus, self.timeout = num_gpus, timeout
        self.num_restarts = 0
        """Of the whole run."""
        self._members: list[_Member] = []

    def run(self) -> Any:
        """What `run` of the worker of rank 0 returns.

        Raises ProcessError when workers die more than `MAX_RESTARTS` times without a checkpoint in between, and for one
        that gives no sign of life for `timeout` seconds, with its phase; and what a worker raises.
        """
        fruitless, saved = 0, self.steps_saved()
        try:
            while True:
                try:
                    return self._attempt()
                except ActorDied as death:
                    self._end()
                    before, saved = saved, self.steps_saved()
                    fruitless = fruitless + 1 if saved == before else 1
                    if fruitless > MAX_RESTARTS:
                        raise ProcessError(
                            f"{death} Training was restarted {MAX_RESTARTS} times from step {saved}, and a worker died "
                            "again before the next checkpoint.",
                            fix="see whether its machine has enough memory: the kernel kills the largest process; save "
                            "more often with run.save_every.",
                        ) from death
                    self.num_restarts += 1
                    self.write(f"motet: warning: {death} Training starts again from step {saved}.\n", True)
        finally:
            self._end()

    def _attempt(self) -> Any:
        """One start of all workers. Raises ActorDied when one of them dies."""
        now = time.monotonic()
        for rank in range(self.size):
            actor = self.backend.start(self.make, f"training worker {rank}", self.num_gpus, threads=2)
            self._members.append(_Member(rank, actor, now))
        host, port = self._ask(self._members[0], "address") if self.size > 1 else ("127.0.0.1", 0)
        running = {
            self.backend.call(one.actor, "run", Place(one.rank, self.size, host, port)): one for one in self._members
        }
        results: dict[int, Any] = {}
        told = False
        while running:
            for answer in self.backend.wait(list(running), INTERVAL):
                member = running.pop(answer)
                results[member.rank] = self._result(answer, member)
            for member in self._members:
                self._look_after(member)
            if self.stop_asked() and not told:
                told = True
                for member in self._members:
                    self._ask(member, "stop")
        return results[0]

    def _result(self, answer: Any, member: _Member) -> Any:
        """What a worker returned. An error that follows from the death of another worker counts as that death."""
        try:
            return self.backend.get(answer)
        except ActorDied as death:
            raise self._named(member, death) from death
        except ProcessError:
            for other in self._members:
                self._look_after(other)
            raise

    def _look_after(self, member: _Member) -> None:
        """Print what a worker has to say. Raises ActorDied, and ProcessError after a silence."""
        status: Status = self._ask(member, "status")
        for text, to_stderr in status.output:
            self.write(text, to_stderr)
        now = time.monotonic()
        if status.output or status.phase != member.phase:
            member.heard, member.phase = now, status.phase
        if now - member.heard > self.timeout + GRACE:
            self._raise_silent(member)

    def _ask(self, member: _Member, method: str) -> Any:
        """A short question, which a worker answers beside its work."""
        answer = self.backend.call(member.actor, method)
        if not self.backend.wait([answer], self.timeout + GRACE):
            self._raise_silent(member)
        try:
            return self.backend.get(answer)
        except ActorDied as death:
            raise self._named(member, death) from death

    def _raise_silent(self, member: _Member) -> None:
        raise ProcessError(
            f"The {member.name} has given no sign of life for {self.timeout + GRACE:g} s (phase {member.phase!r}).",
            fix="see whether its machine still answers, or raise --timeout.",
        )

    def _named(self, member: _Member, death: ActorDied) -> ActorDied:
        return ActorDied(f"The {member.name} died (phase {member.phase!r}): {death}")

    def _end(self) -> None:
        for member in self._members:
            self.backend.kill(member.actor)
        self._members = []
