"""Several gloo processes that run a function of a test, and what each returns."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from motet.distributed.processes import TorchProcesses

SECONDS = 60.0
"""After which a process that waits for another fails: a deadlock is an error."""


def run_in_processes(function: Callable[..., Any], size: int, folder: Path, *arguments: Any) -> list[Any]:
    """`function(processes, *arguments)` in `size` new processes; the results by rank. `function` is a module's own."""
    folder.mkdir(parents=True, exist_ok=True)
    multiprocessing.spawn(_run, (function, size, folder, arguments), nprocs=size)  # type: ignore[attr-defined]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


def _run(rank: int, function: Callable[..., Any], size: int, folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), size)
    limit = datetime.timedelta(seconds=SECONDS)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=limit)
    torch.save(function(TorchProcesses(SECONDS), *arguments), folder / f"{rank}.pt")
    if dist.is_initialized():
        dist.destroy_process_group()
