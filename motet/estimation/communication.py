"""Seconds of communication between ranks, by a bandwidth model: the slowest link, and rings that use all of it.

A ring over n ranks moves (n - 1) / n of the bytes through every link in a reduce-scatter or an all-gather, twice that
in an all-reduce. Over several machines the ring is hierarchical: every device's share of the network carries 1 / m of
the bytes, m devices in a machine, after a reduction inside it.
"""

from __future__ import annotations

from motet.estimation.efficiency import Efficiency
from motet.estimation.hardware import Device
from motet.estimation.memory import Settings
from motet.estimation.model_size import FLOAT32, ModelSize

LATENCY = 20e-6
"""Seconds to start one collective over all ranks: NCCL's on one machine are about half, on many twice that."""


def gather_seconds(moved: float, ranks: int, device: Device, efficiency: Efficiency) -> float:
    """All-gather or reduce-scatter of `moved` bytes in all."""
    if ranks <= 1:
        return 0.0
    inside = min(ranks, device.per_machine)
    machines = -(-ranks // device.per_machine)
    seconds = (inside - 1) / inside * moved / (device.link * efficiency.links)
    if machines > 1:
        seconds += (machines - 1) / machines * moved / (inside * device.network * efficiency.links)
    return seconds + LATENCY


def all_reduce_seconds(moved: float, ranks: int, device: Device, efficiency: Efficiency) -> float:
    """A reduce-scatter, then an all-gather."""
    return 2 * gather_seconds(moved, ranks, device, efficiency)


def learn_seconds(
    size: ModelSize, settings: Settings, device: Device, efficiency: Efficiency, computing: float, passes: int
) -> float:
    """Communication of the phase `learn` that computation does not hide.

    `replicas`: one all-reduce of float32 gradients per optimizer step, after the last backward pass, so nothing hides
    it. `fsdp`: in every one of `passes` forward and backward passes two all-gathers of the weights as they are
    stored and a reduce-scatter of float32 gradients, prefetched one layer ahead: hidden by up to `overlap` of the
    `computing` seconds.
    """
    if settings.ranks <= 1:
        return 0.0
    if settings.parallel == "replicas":
        steps = settings.iterations * settings.minibatches
        return steps * all_reduce_seconds(float(FLOAT32 * size.trainable), settings.ranks, device, efficiency)
    each = 2 * gather_seconds(float(size.sharded_bytes), settings.ranks, device, efficiency)
    each += gather_seconds(float(FLOAT32 * size.trainable), settings.ranks, device, efficiency)
    latency = 3 * LATENCY * sum(len(size.units[name]) for name in size.units if size.parts[name].sharded)
    return max(0.0, passes * (each + latency) - efficiency.overlap * computing)


def rollout_seconds(size: ModelSize, settings: Settings, device: Device, efficiency: Efficiency) -> float:
    """`fsdp` gathers all that is sharded once for every rollout."""
    if settings.parallel != "fsdp":
        return 0.0
    return gather_seconds(float(size.sharded_bytes), settings.ranks, device, efficiency)
