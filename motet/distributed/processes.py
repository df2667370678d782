"""The processes of a run. Each executes the same loop on its own groups of trajectories; here they agree.

A run in one process uses `Processes()` itself, whose collectives return what they are given, so the loop has no branch
for it. What passes between processes as Python objects is small, and made by this run's own processes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

from motet.distributed.meetings import Meetings, connect_store, host_store
from motet.distributed.watchdog import Watchdog

T = TypeVar("T")


class Processes:
    """One process: rank 0 of 1."""

    rank, size = 0, 1
    step: int | None = None
    """The step that the run is in, for messages."""

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
        So does a process that does not come within the timeout.
        """
        yield

    def leave(self, error: BaseException | None = None) -> str | None:
        """The last call of a run, with the error that ended it, if one did. Returns what process 0 tells of its own."""


class TorchProcesses(Processes):
    """The processes of a torch.distributed process group, as `torchrun` starts them."""

    def __init__(self, timeout: float) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        store, port = host_store() if self.is_main else (None, 0)
        port = self._gather(port)[0]
        self.meetings = Meetings(store or connect_store(port), self.rank, self.size, timeout)
        own = None if self.is_main else Meetings(connect_store(port), self.rank, self.size, timeout)
        self._watchdog = None if own is None else Watchdog(own)

    def all_gather(self, value: T) -> list[T]:
        with self.meetings.collective():
            return self._gather(value)

    def all_reduce_(self, tensors: Sequence[Tensor]) -> None:
        with self.meetings.collective():
            for tensor in tensors:
                dist.all_reduce(tensor)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.meetings.enter(f"in phase {name!r}{'' if self.step is None else f' of step {self.step}'}")
        try:
            with self.meetings.collective():  # replays of sharded weights have some
                yield
        except Exception as error:
            self.meetings.fail(error)
            _hang_up()
            if isinstance(error, RuntimeError):  # a collective that another process has left
                self.meetings.check()
            raise
        self.meetings.meet()

    def leave(self, error: BaseException | None = None) -> str | None:
        if error is not None:
            self.meetings.fail(error)
        told = self.meetings.leave(error)
        if self._watchdog is not None:
            self._watchdog.stop()
        return told

    def _gather(self, value: T) -> list[T]:
        parts: list[Any] = [None] * self.size
        dist.all_gather_object(parts, value)
        return parts


def _hang_up() -> None:
    """After an error: others may wait for this process in a collective of sharded weights, which then fails at once.

    With NCCL it fails after the timeout.
    """
    if dist.is_initialized() and dist.get_backend() == "gloo":
        dist.destroy_process_group()
