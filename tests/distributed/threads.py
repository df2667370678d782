"""The processes of a run as threads of this one: the same logic as under torchrun, without starting anything."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from motet.config import parse_recipe
from motet.distributed import parallel as parallel_module
from motet.distributed.parallel import Parallel
from motet.distributed.processes import Processes
from motet.distributed.replicas import Replicas
from motet.policies import load_policy
from motet.report.run_dir import FollowerFolder, RunFolder
from motet.training.run_loop import Run
from motet.training.setup import TrainingSetup, setup_rl, setup_sft
from motet.training.sft import train_sft
from motet.training.signals import Interrupt
from motet.training.trainer import train
from tests.runs import RecordingCallback

T = TypeVar("T")
_LOADING = threading.Lock()
"""transformers replaces methods of its classes while it loads; two threads at once would leave them replaced."""
Ran = tuple[TrainingSetup, list[dict[str, float]]]
"""A run's session, and the metrics of its steps."""


class _Table:
    """Where the threads lay their values down, and wait until all have."""

    def __init__(self, size: int) -> None:
        self.barrier, self.values = threading.Barrier(size, timeout=60), [None] * size


class ThreadProcesses(Processes):
    """One of several threads that take themselves for the processes of a run."""

    def __init__(self, rank: int, table: _Table) -> None:
        self.rank, self.size, self.table = rank, len(table.values), table
        self.reduced = 0
        """Tensors that were added up over the threads."""

    def all_gather(self, value: Any) -> list[Any]:
        self.table.values[self.rank] = value
        self.table.barrier.wait()
        gathered = list(self.table.values)
        self.table.barrier.wait()  # everyone has read
        return gathered

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            summed = sum(self.all_gather(tensor.clone()))
            tensor.copy_(summed)
            self.reduced += 1


def _load_alone(*args: Any) -> Any:
    with _LOADING:
        return load_policy(*args)


def in_threads(size: int, call: Callable[[ThreadProcesses], T]) -> list[T]:
    """What `call` returns in each of `size` threads; raises the first error, by rank."""
    table, results, errors = _Table(size), [None] * size, [None] * size

    def work(rank: int) -> None:
        try:
            results[rank] = call(ThreadProcesses(rank, table))
        except BaseException as error:
            errors[rank] = error
            table.barrier.abort()

    settings: Any = torch.utils.deterministic  # global settings that runs put back, each its own
    deterministic, filling = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel_module, "load_policy", _load_alone)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    torch.use_deterministic_algorithms(deterministic)
    settings.fill_uninitialized_memory = filling
    for error in sorted((e for e in errors if e), key=lambda e: isinstance(e, threading.BrokenBarrierError)):
        raise error
    return results


def run_in_threads(
    size: int, content: dict[str, Any], folder: Path, *, supervised: bool = False, stop_after: int | None = None
) -> list[Ran]:
    """A run shared by `size` threads: each one's session, and the metrics that it saw."""
    resume = (folder / "recipe.yaml").is_file()

    def work(processes: ThreadProcesses) -> Ran:
        own = (RunFolder if processes.is_main else FollowerFolder)(folder, resume=resume)
        processes.all_gather(None)  # before any of them writes
        last = processes.rank == size - 1
        return run(content, own, Replicas(processes), supervised=supervised, stop_after=stop_after if last else None)

    return in_threads(size, work)


def run(
    content: dict[str, Any],
    folder: RunFolder,
    parallel: Parallel | None = None,
    *,
    supervised: bool = False,
    stop_after: int | None = None,
) -> Ran:
    """A process's part of a run; without `parallel` a whole run."""
    session = (setup_sft if supervised else setup_rl)(parse_recipe(content), parallel)
    interrupt = Interrupt()
    notes = RecordingCallback(interrupt, stop_after)
    with folder.held():
        folder.create("")
        (train_sft if supervised else train)(session, Run(session, folder, notes, interrupt))
    return session, notes.seen
