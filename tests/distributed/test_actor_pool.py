"""Work of actors that die, hang or raise: done again, or an error that names the actor and the phase."""

import pytest

from motet.core.errors import ConfigError, ProcessError
from motet.distributed.actor_pool import MAX_DEATHS, ActorPool
from tests.distributed.fake_backend import FakeBackend, sent


class Doubler:
    """Doubles; remembers what it was given once for all."""

    shared = None

    def double(self, number, shared=None):
        if shared is not None:
            self.shared = shared
        if number < 0:
            raise ConfigError("It is negative.", fix="give a positive number.")
        return 2 * number, self.shared


def pool(backend: FakeBackend, size: int = 2) -> ActorPool:
    return ActorPool(backend, Doubler, size, name="rollout", timeout=5.0)


def test_results_are_in_the_order_of_the_work_whichever_actor_is_first():
    backend = FakeBackend()
    assert pool(backend, 3).map("double", range(7), "w") == [(2 * n, "w") for n in range(7)]
    assert len(backend.actors) == 3
    assert len({answer.actor.number for answer in backend.calls}) == 3


def test_each_actor_gets_the_shared_value_once_per_call_of_map():
    backend = FakeBackend()
    doublers = pool(backend)
    for version in ("first", "second"):
        assert [own for _, own in doublers.map("double", range(5), version)] == [version] * 5
    sent = [answer.arguments[1] for answer in backend.calls]
    assert sent.count("first") == sent.count("second") == 2
    assert sent.count(None) == 6


def test_the_work_of_a_dead_actor_is_done_by_its_replacement():
    backend = FakeBackend(dies=lambda actor, calls: actor.number == 1 and calls == 1)
    doublers = pool(backend)
    with pytest.warns(UserWarning, match=r"rollout actor 1 died: it is replaced.* \(death 1 of this run\)"):
        assert doublers.map("double", range(6), "w") == [(2 * n, "w") for n in range(6)]
    assert [actor.name for actor in backend.actors] == ["rollout actor 0", "rollout actor 1", "rollout actor 1"]
    assert doublers.num_deaths == 1


def test_deaths_of_one_step_are_bounded_and_those_of_a_run_are_not():
    always = FakeBackend(dies=lambda actor, calls: True)
    with pytest.raises(ProcessError, match=r"rollout actor \d died \(phase 'rollout'\): It was killed. 4 actors died"):
        pool(always).map("double", range(2))
    assert len(always.actors) == 2 + MAX_DEATHS
    assert not any(actor.alive for actor in always.actors)
    first_call = FakeBackend(dies=lambda actor, calls: calls == 1)
    doublers = pool(first_call, 1)
    for _ in range(MAX_DEATHS + 2):
        assert [n for n, _ in doublers.map("double", range(2))] == [0, 2]
    assert doublers.num_deaths > MAX_DEATHS


def test_an_actor_that_does_not_answer_is_named_and_all_are_ended():
    backend = FakeBackend(hangs=lambda actor, calls: actor.number == 1)
    doublers = pool(backend)
    with pytest.raises(ProcessError, match=r"rollout actor 1 did not answer within 5 s \(phase 'rollout'\)"):
        doublers.map("double", range(4))
    assert not any(actor.alive for actor in backend.actors)


def test_an_error_of_an_actor_is_raised_here():
    backend = FakeBackend()
    with pytest.raises(ConfigError, match="negative"):
        pool(backend).map("double", [1, -1, 2])
    assert not any(actor.alive for actor in backend.actors)


def test_errors_pass_between_processes():
    error = sent(ConfigError("It is wrong.", fix="correct it."))
    assert isinstance(error, ConfigError)
    assert (error.problem, error.fix) == ("It is wrong.", "correct it.")
