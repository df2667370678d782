"""Actors in real processes of Ray: killed, hanging, raising; nothing is left behind."""

import os
import tempfile
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("ray")

from motet.core.errors import ConfigError, ProcessError
from motet.distributed import supervisor as module
from motet.distributed.actor_pool import ActorPool
from motet.distributed.ray_backend import ray_cluster
from motet.distributed.supervisor import Supervisor
from scripts.kill_ray import descendants
from tests.distributed.small_workers import Calculator, SmallTrainer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def backend():
    before = set(descendants(os.getpid()))
    made: list[Path] = []  # by this process: other tests may run clusters at the same time

    def make_folder(*args, **kwargs):
        made.append(Path(mkdtemp(*args, **kwargs)))
        return str(made[-1])

    with pytest.MonkeyPatch.context() as patch:
        mkdtemp = tempfile.mkdtemp
        patch.setattr(tempfile, "mkdtemp", make_folder)
        with ray_cluster("auto", 3) as backend:
            yield backend
    assert not {pid for pid in descendants(os.getpid()) if pid not in before}
    assert not [folder for folder in made if folder.name.startswith("motet_ray_") and folder.exists()]


def pool(backend, size=2, timeout=60.0):
    return ActorPool(backend, Calculator, size, name="rollout", timeout=timeout)


def test_the_work_of_a_killed_actor_is_done_again(backend, tmp_path):
    calculators = pool(backend)
    shared, file = backend.put("weights"), str(tmp_path / "died")
    results = calculators.map("do", [1, file, 2, 3], shared)
    assert results[1] == file
    assert [number for number, _ in (results[0], *results[2:])] == [2, 4, 6]
    assert calculators.num_deaths == 1
    calculators.close()


def test_an_actor_that_always_dies_is_an_error(backend):
    with pytest.raises(ProcessError, match=r"rollout actor 0 died \(phase 'rollout'\).*4 actors died in this step"):
        pool(backend, 1).map("do", ["die"])


def test_an_actor_that_hangs_is_an_error(backend):
    with pytest.raises(ProcessError, match=r"rollout actor \d did not answer within 5 s \(phase 'rollout'\)"):
        pool(backend, timeout=5.0).map("do", [1, "hang"])


def test_what_an_actor_raises_is_raised_here(backend):
    with pytest.raises(ConfigError, match="It is wrong"):
        pool(backend, 1).map("do", ["raise"])
    with pytest.raises(ProcessError, match="ValueError: a bug"):
        pool(backend, 1).map("do", ["break"])


def supervisor(backend, plan, size=1, timeout=60.0, **settings):
    said = []
    watched = Supervisor(
        backend,
        partial(SmallTrainer, plan),
        size,
        steps_saved=lambda: 7,
        write=lambda text, to_stderr: said.append(text),
        timeout=timeout,
        **settings,
    )
    return watched, said


def test_killed_training_workers_start_again(backend, tmp_path):
    watched, said = supervisor(backend, str(tmp_path / "died"), size=2)
    rank, pid = watched.run()
    assert rank == 0
    assert pid != os.getpid()
    assert watched.num_restarts == 1
    assert any("died (phase 'rewards')" in text and "again from step 7" in text for text in said)


def test_a_training_worker_that_hangs_is_an_error(backend, monkeypatch):
    monkeypatch.setattr(module, "GRACE", 0.0)
    watched, said = supervisor(backend, "hang", timeout=5.0)
    with pytest.raises(ProcessError, match=r"training worker 0 .* no sign of life for 5 s \(phase 'rewards'\)"):
        watched.run()
    assert said == ["train 1/4\n"]


def test_training_workers_are_asked_to_stop(backend):
    watched, _ = supervisor(backend, "until asked", stop_asked=lambda: True)
    assert watched.run()[0] == 0
    assert watched.num_restarts == 0
