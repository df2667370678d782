"""Threads beside other work: fewer while this process has to wait for a processor, all again afterwards."""

import pytest
import torch

from motet.training import threads
from motet.training.threads import ThreadTuner


class Machine:
    """A clock, and what the kernel would tell of two threads."""

    def __init__(self, folder, monkeypatch) -> None:
        self.folder, self.now, self.waited, self.number = folder, 0.0, [0, 0], 2
        for task in (0, 1):
            (folder / str(task)).mkdir()
        self.write()
        monkeypatch.setattr(threads.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.number)
        monkeypatch.setattr(torch, "set_num_threads", self.set_number)

    def set_number(self, number: int) -> None:
        self.number = number

    def write(self) -> None:
        for task, waited in enumerate(self.waited):
            (self.folder / str(task) / "schedstat").write_text(f"123456 {int(waited * 1e9)} 789\n")

    def passes(self, seconds: float, waiting: float) -> None:
        """Seconds in which each of the two threads waited for that share."""
        self.now += seconds
        self.waited = [one + seconds * waiting for one in self.waited]
        self.write()


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_a_free_machine_keeps_its_threads(machine):
    tuner = ThreadTuner(machine.folder)
    for _ in range(10):
        machine.passes(1, 0.01)
        tuner.adapt()
    assert machine.number == 2


def test_competition_takes_threads_away_and_calm_gives_them_back(machine):
    tuner = ThreadTuner(machine.folder)
    machine.passes(1, 0.3)
    tuner.adapt()
    assert machine.number == 1
    machine.passes(threads.PATIENCE - 1, 0.0)
    tuner.adapt()
    assert machine.number == 1
    machine.passes(2, 0.0)
    tuner.adapt()
    assert machine.number == 2


def test_trying_all_threads_too_early_doubles_the_patience(machine):
    tuner = ThreadTuner(machine.folder)
    waits = []
    for _ in range(3):
        machine.passes(1, 0.4)
        tuner.adapt()
        assert machine.number == 1
        calm = 0
        while machine.number == 1:
            machine.passes(1, 0.0)
            tuner.adapt()
            calm += 1
        waits.append(calm)
    assert waits == [20, 40, 80]


def test_competition_after_a_long_calm_begins_with_the_first_patience(machine):
    tuner = ThreadTuner(machine.folder)
    for _ in range(2):
        machine.passes(1, 0.4)
        tuner.adapt()
        machine.passes(100, 0.0)
        tuner.adapt()
        assert machine.number == 2
        machine.passes(500, 0.0)
        tuner.adapt()
    assert tuner._patience == threads.PATIENCE


def test_a_run_leaves_the_number_of_threads_as_it_was():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), threads.same_threads():
        torch.set_num_threads(before + 1)
        raise KeyError
    assert torch.get_num_threads() == before


def test_competition_with_one_thread_is_no_calm(machine):
    tuner = ThreadTuner(machine.folder)
    machine.passes(1, 0.4)
    tuner.adapt()
    for _ in range(60):
        machine.passes(1, 0.4)
        tuner.adapt()
    assert machine.number == 1


def test_short_times_are_added_up(machine):
    tuner = ThreadTuner(machine.folder)
    for _ in range(4):
        machine.passes(0.1, 1.0)
        tuner.adapt()
    assert machine.number == 2
    machine.passes(0.2, 0.0)
    tuner.adapt()
    assert machine.number == 1


def test_without_schedstat_nothing_happens(machine, tmp_path):
    tuner = ThreadTuner(tmp_path / "absent")
    machine.passes(5, 1.0)
    tuner.adapt()
    assert machine.number == 2
