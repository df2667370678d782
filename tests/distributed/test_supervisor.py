"""Training workers that die, hang, raise or are asked to stop."""

from functools import partial

import pytest

from motet.core.errors import ConfigError, ProcessError
from motet.distributed import supervisor as module
from motet.distributed.actor_pool import ActorDied
from motet.distributed.supervisor import MAX_RESTARTS, Place, Status, Supervisor
from tests.distributed.fake_backend import FakeBackend


class Job:
    """What the workers of a test share: `saved` is the newest checkpoint, `outcome` says what a start of one does."""

    def __init__(self, outcome=lambda start, place: "done") -> None:
        self.outcome, self.saved, self.starts, self.stopped = outcome, 0, 0, 0
        self.output: list[str] = []


class Worker:
    def __init__(self, job) -> None:
        self.job = job

    def address(self):
        return "10.0.0.1", 1234

    def run(self, place):
        self.job.starts += 1
        return self.job.outcome(self.job.starts, place)

    def status(self):
        return Status([("train 1/4\n", False)] if not self.job.output else [], "learn")

    def stop(self):
        self.job.stopped += 1


def supervisor(job, backend=None, size=1, **settings):
    return Supervisor(
        backend or FakeBackend(),
        partial(Worker, job),
        size,
        steps_saved=lambda: job.saved,
        write=lambda text, to_stderr: job.output.append(text),
        timeout=5.0,
        **settings,
    )


def die(*_):
    raise ActorDied("It was killed.")


def test_output_is_printed_and_the_result_is_that_of_rank_0():
    job = Job(lambda start, place: place)
    assert supervisor(job, size=3).run() == Place(0, 3, "10.0.0.1", 1234)
    assert job.output == ["train 1/4\n"]
    assert job.starts == 3


def test_a_death_starts_all_workers_again():
    job = Job(lambda start, place: die() if start == 2 else "done")
    backend = FakeBackend()
    watched = supervisor(job, backend, size=2)
    assert watched.run() == "done"
    assert watched.num_restarts == 1
    assert len(backend.actors) == 4
    assert not any(actor.alive for actor in backend.actors)
    (warning,) = [text for text in job.output if "died" in text]
    assert warning.startswith("motet: warning: The training worker ")
    assert "(phase 'learn'): It was killed. Training starts again from step 0." in warning


def test_deaths_without_a_checkpoint_between_are_bounded():
    job = Job(die)
    with pytest.raises(ProcessError, match=r"training worker 0 died .* restarted 3 times from step 0"):
        supervisor(job).run()
    assert job.starts == 1 + MAX_RESTARTS


def test_deaths_with_progress_between_are_not():
    job = Job()

    def outcome(start, place):
        job.saved += 1
        return die() if start <= 10 else "done"

    job.outcome = outcome
    watched = supervisor(job)
    assert watched.run() == "done"
    assert watched.num_restarts == 10


def test_an_error_that_follows_from_a_death_counts_as_one():
    first = {"start": True}

    def outcome(start, place):
        if place.rank == 1 and first.pop("start", False):
            raise ProcessError("Process 0 does not answer.", fix="see it.")
        return "done"

    job = Job(outcome)
    backend = FakeBackend()
    backend.dies = lambda actor, calls: actor.number == 0 and "start" not in first
    watched = supervisor(job, backend, size=2)
    assert watched.run() == "done"
    assert watched.num_restarts == 1


def test_an_error_of_a_worker_is_raised_and_ends_all():
    def outcome(start, place):
        raise ConfigError("It is wrong.", fix="correct it.")

    backend = FakeBackend()
    with pytest.raises(ConfigError, match="wrong"):
        supervisor(Job(outcome), backend, size=2).run()
    assert not any(actor.alive for actor in backend.actors)


def test_a_worker_without_a_sign_of_life_is_named_with_its_phase(monkeypatch):
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    backend = FakeBackend(hangs=lambda actor, calls: calls == 0)  # `run`; it still says its status
    with pytest.raises(ProcessError, match=r"training worker 0 has given no sign of life for 35 s \(phase 'learn'\)"):
        supervisor(Job(), backend).run()
    silent = FakeBackend(hangs=lambda actor, calls: True)
    with pytest.raises(ProcessError, match=r"no sign of life for 35 s \(phase 'start'\)"):
        supervisor(Job(), silent).run()


def test_workers_are_asked_once_to_stop():
    job = Job()
    backend = FakeBackend(hangs=lambda actor, calls: calls == 0 and len(backend.calls) < 8)
    assert supervisor(job, backend, stop_asked=lambda: True).run() == "done"
    assert job.stopped == 1
