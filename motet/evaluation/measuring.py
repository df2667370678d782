"""Times, memory and the machine, for benchmarks.

Two sides are compared by the ratio of runs that alternate in one process, so that a busy machine slows both.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

T = TypeVar("T")
_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given; before and after whatever is timed."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_seconds(run: Callable[[], Any], device: torch.device) -> float:
    """How long a call takes, its work on the device included."""
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def ratio_fields(ours: Sequence[float], baseline: Sequence[float]) -> dict[str, float]:
    """`ratio`, the median over pairs of runs of how many times longer the baseline takes; its extremes."""
    ratios = [b / a for a, b in zip(ours, baseline, strict=True)]
    return {"ratio": statistics.median(ratios), "ratio_low": min(ratios), "ratio_high": max(ratios)}


def reset_peak_memory(device: torch.device) -> None:
    """Begin a new peak: of what torch allocates on a CUDA device, else of this process, where Linux allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text("5", encoding="ascii")


def peak_memory(device: torch.device) -> int:
    """Peak memory in bytes since the last reset; where that is not allowed, since the process started."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def describe_device(device: torch.device) -> str:
    """The card's name, or the number of threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{torch.get_num_threads()} CPU thread(s)"


def describe_machine() -> dict[str, Any]:
    """What a figure depends on: processor, cores, threads, load, and versions of the libraries."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    """Model, family and instruction set, as far as the system tells."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            fields.setdefault(name.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    model = f", family {fields['cpu family']} model {fields['model']}" if "model" in fields else ""
    return f"{name}{model}, {torch.backends.cpu.get_cpu_capability()}"


def in_new_process(function: Callable[..., T], *arguments: Any) -> T:
    """Call a module's function in a process of its own, whose peak memory is its own too, with as many threads."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _set_threads, (torch.get_num_threads(),)) as pool:
        return pool.submit(function, *arguments).result()


def _set_threads(count: int) -> None:
    torch.set_num_threads(count)


def matmul_rate(device: torch.device, dtype: torch.dtype, size: int | None = None) -> float:
    """Operations per second (a multiply-add counts as 2) of large square matrix products; the fastest of some."""
    size = size or (8192 if device.type == "cuda" else 1024)
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = [measure_seconds(lambda: left @ right, device) for _ in range(8)]
    return 2 * size**3 / min(seconds[1:])


def memory_bandwidth(device: torch.device, num_bytes: int | None = None) -> float:
    """Bytes per second that a large copy reads and writes; the fastest of some."""
    num_bytes = num_bytes or (1 << 32 if device.type == "cuda" else 1 << 28)
    source = torch.zeros(num_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = [measure_seconds(lambda: target.copy_(source), device) for _ in range(8)]
    return 2 * num_bytes / min(seconds[1:])
