"""The processes of a run. Each executes the same loop on its own groups of trajectories; here they agree.

A run in one process uses `Processes()` itself, whose collectives return what they are given, so the loop has no branch
for it. What passes between processes as Python objects is small, and made by this run's own processes.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from motet.core.errors import ProcessError

T = TypeVar("T")


class Processes:
    """One process: rank 0 of 1."""

    rank, size = 0, 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run folder and prints."""
        return self.rank == 0

    def all_gather(self, value: T) -> list[T]:
        """Every process's value, by rank. Values are small: lengths, scores, counts."""
        return [value]

    def broadcast(self, value: T) -> T:
        """Rank 0's value."""
        return self.all_gather(value)[0]

    def any(self, flag: bool) -> bool:
        """Whether it is true in any process."""
        return any(self.all_gather(bool(flag)))

    def max(self, number: int) -> int:
        """The largest over all processes."""
        return max(self.all_gather(number))

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        """Add up tensors of equal shapes over the processes, in place."""

    def own(self, items: Sequence[T]) -> list[T]:
        """This process's share of a list that all processes have: every `size`-th from `rank` on."""
        return list(items[self.rank :: self.size])

    def merge(self, own: Sequence[T]) -> list[T]:
        """The inverse of `own`, of small objects: the whole list in its order, in every process."""
        parts = self.all_gather(list(own))
        total = sum(map(len, parts))
        return [parts[n % self.size][n // self.size] for n in range(total)]

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """A part of a step in which processes work apart. At its end they wait for each other.

        An error in one process is raised there, and ends the others with a ProcessError that names its rank and phase.
        No collective may be called inside.
        """
        yield


class TorchProcesses(Processes):
    """The processes of a torch.distributed process group, as `torchrun` starts them."""

    def __init__(self, timeout: float) -> None:
        self.rank, self.size, self.timeout = dist.get_rank(), dist.get_world_size(), timeout

    def all_gather(self, value: T) -> list[T]:
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, value)
        return parts

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            dist.all_reduce(tensor)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        error: BaseException | None = None
        try:
            yield
        except Exception as raised:
            error = raised
        said = self.all_gather(None if error is None else f"{type(error).__name__}: {error}")
        if error is not None:
            raise error
        for rank, text in enumerate(said):
            if text is not None:
                raise ProcessError(f"Process {rank} failed in phase {name!r}: {text}", fix="see its own message.")


def launched_by_torchrun() -> bool:
    """Whether this process is one of several that `torchrun` or a scheduler started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def init_processes(device: torch.device, timeout: float = 1800.0) -> Processes:
    """Join the process group that the environment names (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT)."""
    if not dist.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        dist.init_process_group(backend, timeout=datetime.timedelta(seconds=timeout))
    return TorchProcesses(timeout)
