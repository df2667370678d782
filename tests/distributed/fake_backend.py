"""A backend of actors in this process, whose deaths and silences a test plans."""

import copy
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from motet.distributed.actor_pool import ActorDied


def sent(value: Any) -> Any:
    """What another process would get: a copy, of what can be serialised. Nothing is ever loaded from a pickle."""
    pickle.dumps(value)
    return copy.deepcopy(value)


@dataclass(eq=False)
class FakeActor:
    """Numbered in the order of their start; `name` is that of its place in the pool."""

    number: int
    name: str
    object: Any
    alive: bool = True


@dataclass(eq=False)
class FakeAnswer:
    """A call that is made when it is asked for; what is passed is copied, as between processes."""

    actor: FakeActor
    method: str
    arguments: tuple[Any, ...]


@dataclass(eq=False)
class FakeBackend:
    """`dies(actor, calls)` and `hangs(actor, calls)` say what becomes of the actor's call; `calls` are those before it.

    Of the answers that are waited for, the last one is ready first.
    """

    dies: Callable[[FakeActor, int], bool] = lambda actor, calls: False
    hangs: Callable[[FakeActor, int], bool] = lambda actor, calls: False
    actors: list[FakeActor] = field(default_factory=list)
    calls: list[FakeAnswer] = field(default_factory=list)
    stored: list[Any] = field(default_factory=list)
    num_gpus: float = 0.0

    def start(self, make: Callable[[], Any], name: str, num_gpus: float, threads: int = 1) -> FakeActor:
        self.actors.append(FakeActor(len(self.actors), name, make()))
        return self.actors[-1]

    def call(self, actor: FakeActor, method: str, *arguments: Any) -> FakeAnswer:
        assert actor.alive
        self.calls.append(FakeAnswer(actor, method, sent(arguments)))
        return self.calls[-1]

    def put(self, value: Any) -> Any:
        self.stored.append(value)
        return value

    def wait(self, answers: Sequence[FakeAnswer], seconds: float) -> list[FakeAnswer]:
        ready = [one for one in answers if not self.hangs(one.actor, self._before(one))]
        return ready[-1:]

    def get(self, answer: FakeAnswer) -> Any:
        if self.dies(answer.actor, self._before(answer)):
            answer.actor.alive = False
            raise ActorDied("It was killed.")
        return sent(getattr(answer.actor.object, answer.method)(*answer.arguments))

    def kill(self, actor: FakeActor) -> None:
        actor.alive = False

    def _before(self, answer: FakeAnswer) -> int:
        return [one for one in self.calls if one.actor is answer.actor].index(answer)
