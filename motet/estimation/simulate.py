"""A small simulation of training steps on many ranks: where time goes that arithmetic on one rank does not see.

Every rank samples its own whole groups, waits until all have (advantages and denominators are agreed on), scores them,
trains on them, and joins one all-reduce. Texts end at random lengths, so ranks with long texts keep others waiting; a
step of P groups leaves ranks beyond P idle. Imports no torch; the same seed gives the same result.
"""

from __future__ import annotations

import bisect
import math
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from motet.estimation.communication import learn_seconds, rollout_seconds
from motet.estimation.memory import Settings
from motet.estimation.model_size import ModelSize
from motet.estimation.step_time import (
    Machine,
    around_decoding,
    decode_seconds,
    denoising_seconds,
    optimizer_seconds,
    passes,
    replay_seconds,
)
from motet.estimation.workload import ActLoad

SHAPE = 4.0
"""Lengths of texts are gamma distributed with this shape: their standard deviation is half of their mean. Assumed."""


@dataclass(frozen=True)
class Simulated:
    """Means over simulated steps. Shares are of the time of all ranks: `busy` is sampling, scoring and training,
    `waiting` for slower ranks, `idle` of ranks without a group, `communicating` the all-reduce that nothing hides.
    """

    ranks: int
    groups: int
    seconds: float
    trajectories_per_second: float
    busy: float
    waiting: float
    idle: float
    communicating: float


@dataclass(frozen=True)
class _Rank:
    """One rank's seconds of a step."""

    rollout: float
    rewards: float
    learn: float

    @property
    def total(self) -> float:
        return self.rollout + self.rewards + self.learn


def simulate(
    size: ModelSize,
    loads: Sequence[ActLoad],
    settings: Settings,
    machine: Machine,
    *,
    reward_seconds: float = 0.0,
    steps: int = 8,
    seed: int = 0,
) -> Simulated:
    """`steps` steps of `settings.ranks` ranks; `reward_seconds` is the time to score one trajectory on its rank."""
    chance = random.Random(seed)
    scale, alone = machine.efficiency.scale, replace(settings, ranks=1)
    learning = {id(load): _learn_per_group(size, load, alone, machine) for load in loads}
    shares: list[tuple[float, float, float, float, float]] = []
    for _ in range(steps):
        ranks = [
            _rank(
                size,
                _groups_of(loads, rank, settings.ranks),
                settings,
                machine,
                learning=learning,
                chance=chance,
                reward_seconds=reward_seconds,
            )
            for rank in range(min(settings.ranks, max(load.groups for load in loads)))
        ]
        slowest = [max(getattr(rank, phase) for rank in ranks) for phase in ("rollout", "rewards", "learn")]
        computing = max(rank.learn for rank in ranks)
        steps_taken = settings.iterations * settings.minibatches
        fixed = steps_taken * optimizer_seconds(size, settings, machine) * scale.get("learn", 1.0)
        joined = rollout_seconds(size, settings, machine.device, machine.efficiency) + learn_seconds(
            size, settings, machine.device, machine.efficiency, computing, passes(loads, settings)
        )
        whole = sum(slowest) + fixed + joined
        busy = sum(rank.total for rank in ranks) / settings.ranks + fixed
        idle = (settings.ranks - len(ranks)) * sum(slowest) / settings.ranks
        shares.append((whole, busy, whole - busy - idle - joined, idle, joined))
    seconds, *parts = (statistics.fmean(column) for column in zip(*shares, strict=True))
    trajectories = sum({load.track: load.count for load in loads}.values())
    groups = sum({load.track: load.groups for load in loads}.values())
    busy, waiting, idle, joined = (part / seconds for part in parts)
    return Simulated(settings.ranks, groups, seconds, trajectories / seconds, busy, waiting, idle, joined)


def with_groups(loads: Sequence[ActLoad], factor: float) -> list[ActLoad]:
    """The same acts of `factor` times as many prompts."""
    return [replace(load, groups=max(1, round(factor * load.groups))) for load in loads]


def _groups_of(loads: Sequence[ActLoad], rank: int, ranks: int) -> list[tuple[ActLoad, int]]:
    """Each act with the number of its groups that a rank has: groups are dealt out in turn."""
    return [(load, len(range(rank, load.groups, ranks))) for load in loads]


def _rank(
    size: ModelSize,
    own: Sequence[tuple[ActLoad, int]],
    settings: Settings,
    machine: Machine,
    *,
    learning: dict[int, float],
    chance: random.Random,
    reward_seconds: float,
) -> _Rank:
    scale = machine.efficiency.scale
    rollout = learn = 0.0
    trajectories: dict[str, int] = {}
    for load, groups in own:
        count = groups * load.group_size
        if not count:
            continue
        trajectories[load.track] = count
        lengths = _lengths(load, count, chance)
        rollout += _rollout(size, load, lengths, settings, machine)
        tokens = load.context + statistics.fmean(lengths)
        learn += groups * learning[id(load)] * tokens / (load.context + load.mean_positions)
    rewards = reward_seconds * sum(trajectories.values())
    return _Rank(
        rollout * scale.get("rollout", 1.0), rewards * scale.get("rewards", 1.0), learn * scale.get("learn", 1.0)
    )


def _lengths(load: ActLoad, count: int, chance: random.Random) -> list[float]:
    """Positions of each act, ascending: random for texts, equal for images."""
    if load.kind != "text":
        return [float(load.positions)] * count
    scale = load.mean_positions / SHAPE
    return sorted(min(float(load.positions), max(1.0, chance.gammavariate(SHAPE, scale))) for _ in range(count))


def _rollout(size: ModelSize, load: ActLoad, lengths: Sequence[float], settings: Settings, machine: Machine) -> float:
    """Sampling acts of these lengths, in batches of generation_batch_size as they come."""
    batch = min(len(lengths), settings.generation_batch or len(lengths))
    batches = len(lengths) / batch
    if load.kind == "denoising":
        assert size.denoiser is not None
        return batches * denoising_seconds(size, size.denoiser, load, batch, settings, machine)
    assert size.language is not None
    # Each batch holds lengths from all of the distribution: every `batches`-th of the sorted ones.
    some = lengths[math.ceil(batches) - 1 :: math.ceil(batches)]

    def active(position: int) -> float:
        return (len(some) - bisect.bisect_right(some, position)) * batch / len(some)

    seconds = decode_seconds(size.language, load, active, settings, machine)
    return batches * (seconds + around_decoding(size.language, load, batch, settings, machine))


def _learn_per_group(size: ModelSize, load: ActLoad, alone: Settings, machine: Machine) -> float:
    if not load.trained:
        return 0.0
    return sum(replay_seconds(size, load, alone, machine).values()) / load.groups
