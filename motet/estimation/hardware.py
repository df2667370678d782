"""What a device can do: rates, memory and links. Imports no torch; `measure_cpu` does when it is called.

Rates are peaks that the vendor states; `motet.estimation.efficiency` says what share of them is assumed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean

GIB = 2**30


@dataclass(frozen=True)
class Device:
    """One accelerator. Rates are per second: operations (a multiply-add counts as 2) and bytes.

    `memory` is what a process can allocate, in bytes, as `torch.cuda.get_device_properties` reports it. `link` is the
    bandwidth of one device to the others of its machine, one direction; `network` that of one device's share of the
    machine's network. `per_machine` devices share a machine.
    """

    name: str
    memory: float
    bfloat16: float
    float32: float
    bandwidth: float
    link: float
    network: float
    per_machine: int = 8

    def rate(self, dtype: str) -> float:
        """Peak operations per second of matrix products in `float32` or `bfloat16`."""
        return self.bfloat16 if dtype == "bfloat16" else self.float32


_NETWORK = 50e9
"""400 Gbit/s per device, as DGX H100 systems have; one direction."""
_PCIE_4 = 32e9
"""Sixteen lanes of PCIe 4.0, one direction."""
_SLOW_NETWORK = 12.5e9
"""100 Gbit/s per device: usual for machines without NVLink."""

DEVICES: dict[str, Device] = {
    # NVIDIA H100 Tensor Core GPU datasheet (SXM): 1,979 Tflop/s of bfloat16 with sparsity, half of it dense; 67 of
    # float32 outside the tensor cores; 3.35 TB/s; NVLink 900 GB/s in both directions.
    "h100": Device("H100 SXM", 79.1 * GIB, 989.5e12, 67e12, 3.35e12, 450e9, _NETWORK),
    # NVIDIA H200 datasheet (SXM): the H100's rates, 141 GB at 4.8 TB/s.
    "h200": Device("H200 SXM", 139.7 * GIB, 989.5e12, 67e12, 4.8e12, 450e9, _NETWORK),
    # NVIDIA A100 datasheet (SXM): 312 Tflop/s dense bfloat16, 19.5 of float32; NVLink 600 GB/s in both directions.
    "a100-80gb": Device("A100 80GB SXM", 79.1 * GIB, 312e12, 19.5e12, 2.039e12, 300e9, 25e9),
    "a100-40gb": Device("A100 40GB SXM", 39.4 * GIB, 312e12, 19.5e12, 1.555e12, 300e9, 25e9),
    # NVIDIA L40S datasheet: 362 Tflop/s dense bfloat16, 91.6 of float32, 48 GB (ECC on) at 864 GB/s.
    "l40s": Device("L40S", 44.4 * GIB, 362e12, 91.6e12, 0.864e12, _PCIE_4, _SLOW_NETWORK),
    # NVIDIA Ada GPU architecture whitepaper, appendix A: 165.2 Tflop/s dense bfloat16 with float32 accumulation,
    # 82.6 of float32, 1,008 GB/s. Cards talk through the host.
    "rtx4090": Device("RTX 4090", 23.5 * GIB, 165.2e12, 82.6e12, 1.008e12, _PCIE_4 / 2, _SLOW_NETWORK),
}
"""By the names that `--gpu` takes."""
CPU = "cpu"
"""The name of this machine's processor, which is measured."""


def find_device(name: str) -> Device:
    """The device of that name; `cpu` is measured, which takes about two seconds. Raises ConfigError."""
    key = name.lower().replace("_", "-")
    if key == CPU:
        return measure_cpu()
    if key not in DEVICES:
        raise ConfigError(
            f"--gpu is {name!r}; must be one of: {', '.join(DEVICES)}, {CPU}.{did_you_mean(key, DEVICES)}",
            fix="name one of these.",
        )
    return DEVICES[key]


Clock = Callable[[], float]


def measure_cpu(size: int = 1024, copy_bytes: int = 1 << 28, clock: Clock = time.perf_counter) -> Device:
    """This machine's processor under torch's present number of threads: a product of `size` x `size` matrices in both
    types, and a copy of `copy_bytes`, which reads and writes each byte once. The best of several repetitions.

    `clock`: `time.process_time` is fair to a single thread on a machine that does other work too.
    """
    import os

    import torch

    rates: dict[str, float] = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
        rates[name] = 2 * size**3 / _fastest(lambda a=a, b=b: a @ b, clock)
    source = torch.zeros(copy_bytes, dtype=torch.uint8)
    target = torch.empty_like(source)
    bandwidth = 2 * copy_bytes / _fastest(lambda: target.copy_(source), clock)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 16 * GIB
    name = f"{torch.get_num_threads()} CPU thread(s)"
    # Processes on one machine exchange tensors through memory: written once, read once.
    return Device(
        name, float(memory), rates["bfloat16"], rates["float32"], bandwidth, bandwidth / 2, 1.25e9, per_machine=1
    )


def _fastest(work: Callable[[], object], clock: Clock, repetitions: int = 5) -> float:
    """Seconds of the fastest call after one to warm up."""
    work()
    seconds: list[float] = []
    for _ in range(repetitions):
        start = clock()
        work()
        seconds.append(clock() - start)
    return min(seconds)
