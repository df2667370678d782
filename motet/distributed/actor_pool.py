"""A pool of actors in processes of their own: work is handed out as they finish, a dead actor is replaced.

The pool knows Ray only by the small interface `Backend` (`ray_backend.py`), so that its logic is tested without Ray.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from motet.core.errors import ProcessError

MAX_DEATHS = 3
"""Actors of a pool that may die during one call of `ActorPool.map`; one more is an error."""
TIMEOUT = 1800.0
"""Seconds that an actor may take for one call, by default."""


class ActorDied(Exception):
    """The process of an actor ended before it answered."""


@runtime_checkable
class Backend(Protocol):
    """What starts actors and passes calls to them. Actors, references and answers are the backend's own objects."""

    def start(self, make: Callable[[], Any], name: str, num_gpus: float, threads: int = 1) -> Any:
        """Start an actor around the object that `make` returns; does not wait for it.

        It makes so many calls at once, in threads.
        """
        ...

    def call(self, actor: Any, method: str, *arguments: Any) -> Any:
        """Call a method of the actor's object; returns its answer, which is not there yet. References are resolved."""
        ...

    def put(self, value: Any) -> Any:
        """Store a value once for all actors; returns a reference to it."""
        ...

    def wait(self, answers: Sequence[Any], seconds: float) -> list[Any]:
        """The first answers that are ready; none if there are none after so many seconds."""
        ...

    def get(self, answer: Any) -> Any:
        """The value of an answer. Raises ActorDied, or what the method raised."""
        ...

    def kill(self, actor: Any) -> None:
        """End the actor's process at once."""
        ...


@dataclass(eq=False)
class _Member:
    """An actor of the pool; `has_shared`: it was sent what all actors share in this call of `map`."""

    name: str
    actor: Any
    has_shared: bool = False


@dataclass(eq=False)
class _Call:
    """A piece of work that an actor has."""

    number: int
    member: _Member
    deadline: float


class ActorPool:
    """`size` equal actors, started when they are first needed. `name` is what they do, for messages.

    Their numbers begin with `first`.
    """

    def __init__(
        self,
        backend: Backend,
        make: Callable[[], Any],
        size: int,
        *,
        name: str,
        first: int = 0,
        num_gpus: float = 0.0,
        timeout: float = TIMEOUT,
    ) -> None:
        self.backend, self.make, self.size = backend, make, size
        self.name, self.first, self.num_gpus, self.timeout = name, first, num_gpus, timeout
        self.num_deaths = 0
        """Actors that died so far and were replaced."""
        self._members: list[_Member] = []
        self._closed = False

    def start(self) -> None:
        """Start the actors that are missing."""
        while len(self._members) < self.size:
            self._members.append(self._start(f"{self.name} actor {self.first + len(self._members)}"))

    def map(self, method: str, work: Sequence[Any], shared: Any = None) -> list[Any]:
        """`method(work[n], shared)` for every n, in order, each by the next actor that is free.

        `shared` is a reference; an actor gets it with the first piece of work, and None with the others. The work of an
        actor that dies is done again by the one that replaces it. Raises ProcessError, naming the actor, when more than
        `MAX_DEATHS` die and when one does not answer within `timeout` seconds; and what an actor raises.
        """
        self.start()
        for member in self._members:
            member.has_shared = False
        waiting, free = deque(range(len(work))), deque(self._members)
        results: dict[int, Any] = {}
        running: dict[Any, _Call] = {}
        deaths = 0
        try:
            while len(results) < len(work):
                while waiting and free:
                    answer, call = self._hand_out(method, waiting.popleft(), work, shared, free.popleft())
                    running[answer] = call
                for answer in self._wait(running):
                    call = running.pop(answer)
                    try:
                        results[call.number] = self.backend.get(answer)
                        free.append(call.member)
                    except ActorDied as death:
                        deaths += 1
                        self._check_deaths(deaths, call.member, death)
                        waiting.appendleft(call.number)
                        free.append(self._replace(call.member))
        except BaseException:
            self._end()  # what still runs would answer to nobody
            raise
        return [results[n] for n in range(len(work))]

    def each(self, method: str, *arguments: Any) -> list[Any]:
        """`method(*arguments)` of every actor, in their order. Raises ProcessError if one dies, and what one raises."""
        self.start()
        answers = [(one, self.backend.call(one.actor, method, *arguments)) for one in self._members]
        results: list[Any] = []
        for member, answer in answers:
            if not self.backend.wait([answer], self.timeout):
                raise self._overdue(member)
            try:
                results.append(self.backend.get(answer))
            except ActorDied as death:
                raise ProcessError(
                    f"The {member.name} died (phase {self.name!r}): {death}",
                    fix="see whether its machine has enough memory: the kernel kills the largest process.",
                ) from death
        return results

    def close(self) -> None:
        """End all actors, and start no others."""
        self._closed = True
        self._end()

    def _end(self) -> None:
        for member in self._members:
            self.backend.kill(member.actor)
        self._members = []

    def _start(self, name: str) -> _Member:
        if self._closed:
            raise ProcessError(f"The {self.name} actors were ended.", fix="start none afterwards.")
        return _Member(name, self.backend.start(self.make, name, self.num_gpus))

    def _hand_out(
        self, method: str, number: int, work: Sequence[Any], shared: Any, member: _Member
    ) -> tuple[Any, _Call]:
        answer = self.backend.call(member.actor, method, work[number], None if member.has_shared else shared)
        member.has_shared = True
        return answer, _Call(number, member, time.monotonic() + self.timeout)

    def _wait(self, running: dict[Any, _Call]) -> list[Any]:
        """The answers that are there, at least one. Raises ProcessError for the actor that is overdue."""
        overdue = min(running.values(), key=lambda call: call.deadline)
        ready = self.backend.wait(list(running), max(0.0, overdue.deadline - time.monotonic()))
        if not ready:
            raise self._overdue(overdue.member)
        return ready

    def _overdue(self, member: _Member) -> ProcessError:
        return ProcessError(
            f"The {member.name} did not answer within {self.timeout:g} s (phase {self.name!r}).",
            fix="see whether its machine has enough memory and free processors, or raise --timeout.",
        )

    def _check_deaths(self, deaths: int, member: _Member, death: ActorDied) -> None:
        if deaths > MAX_DEATHS:
            raise ProcessError(
                f"The {member.name} died (phase {self.name!r}): {death} {deaths} actors died in this step; at most "
                f"{MAX_DEATHS} are replaced.",
                fix="see whether its machine has enough memory: the kernel kills the largest process.",
            )

    def _replace(self, dead: _Member) -> _Member:
        self.num_deaths += 1
        said = f"{dead.name} died: it is replaced, and its work is done again (death {self.num_deaths} of this run)."
        warnings.warn(said, stacklevel=2)
        self.backend.kill(dead.actor)
        fresh = self._start(dead.name)
        self._members[self._members.index(dead)] = fresh
        return fresh
