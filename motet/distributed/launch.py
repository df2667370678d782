"""How a process of a run that `torchrun` (or another launcher that sets its variables) started joins the others."""

from __future__ import annotations

import datetime
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
import torch.distributed as dist
from torch.distributed import HashStore  # pyright: ignore[reportPrivateImportUsage]

from motet.core.errors import ConfigError, MotetError, ProcessError
from motet.distributed.environment import launched_by_torchrun, local_processes
from motet.distributed.fully_sharded import FullySharded
from motet.distributed.parallel import Parallel
from motet.distributed.processes import Processes, TorchProcesses
from motet.distributed.replicas import Replicas

DISCONNECT_SECONDS = 5.0
BACKSTOP_SECONDS = 60.0
"""Collectives wait longer than meetings, which can tell who is late."""
TIMEOUT = 1800.0
"""Seconds that processes wait for the slowest of them."""


@contextmanager
def open_parallel(name: str | None = None, device: str = "auto", timeout: float | None = None) -> Iterator[Parallel]:
    """How this process takes part in the run, until the `with` block ends: alone, or in the group of its launcher.

    `name`: `replicas` or `fsdp`; None: replicas where there are several processes. `device`: `policy.device`. A process
    group that exists already is used, and not ended.
    """
    if name is None and not launched_by_torchrun() and not dist.is_initialized():
        yield Parallel()
        return
    with _process_group(device, TIMEOUT if timeout is None else timeout) as processes:
        try:
            yield make_parallel(name or "replicas", processes)
        except BaseException as error:
            _disconnect()
            told = processes.leave(error)
            if isinstance(error, MotetError) and not processes.is_main:
                error.told = told is not None and (isinstance(error, ProcessError) or str(error) == told)
            raise
        processes.leave()


def make_parallel(name: str, processes: Processes) -> Parallel:
    """By its name on the command line. Raises ConfigError for another."""
    if name == "replicas":
        return Replicas(processes)
    if name == "fsdp":
        return FullySharded(processes)
    raise ConfigError(f"--parallel is {name!r}; must be one of replicas, fsdp.", fix="correct it, or leave it out.")


@contextmanager
def _process_group(device: str, timeout: float) -> Iterator[TorchProcesses]:
    own = not dist.is_initialized()
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        _choose_gpu(device)
    else:
        _share_cores()
    if own:
        backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
        alone = {} if launched_by_torchrun() else {"store": HashStore(), "rank": 0, "world_size": 1}
        limit = datetime.timedelta(seconds=timeout + BACKSTOP_SECONDS)
        dist.init_process_group(backend, timeout=limit, **alone)
    yield TorchProcesses(timeout)
    if own:  # not after an error: other processes may be in a collective, and this one then waits for them
        dist.destroy_process_group()


def _disconnect() -> None:
    """End the collectives that other processes wait in, so that they learn of an error of this one.

    In a thread: a backend may wait for them in turn.
    """

    def end() -> None:
        with suppress(Exception):
            dist.destroy_process_group()

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    ending.join(DISCONNECT_SECONDS)


def _choose_gpu(device: str) -> None:
    """Each process of a machine uses its own GPU, which `cuda` then stands for."""
    if device not in ("auto", "cuda"):
        raise ConfigError(
            f"policy.device is {device!r}, but every process of a run has its own GPU.",
            fix="set policy.device to auto or cuda; CUDA_VISIBLE_DEVICES chooses among the GPUs of a machine.",
        )
    local, there = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= there:
        raise ConfigError(
            f"{local_processes()} processes run on this machine, which has {there} GPUs.",
            fix=f"start at most {there} of them (--nproc-per-node), or set policy.device=cpu.",
        )
    torch.cuda.set_device(local)


def _share_cores() -> None:
    """torchrun sets one thread for each process; the processes of a machine share its cores."""
    if local_processes() > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        torch.set_num_threads(max(1, cores // local_processes()))
