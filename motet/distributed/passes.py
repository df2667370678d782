"""Micro-batches in an order in which all processes run the same forward passes.

Each process cuts its own acts into micro-batches. Where weights are sharded, a layer runs in all processes or in none:
the n-th replay must be of the same kind everywhere, and there must be as many of them everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from motet.core.trajectory import Act
from motet.distributed.processes import Processes
from motet.policies.sharding import ShardablePolicy

Pass = tuple[Sequence[Act], Sequence[int] | None]
"""The acts to replay, and their positions; None: they have no weight."""


def agree_on_passes(
    processes: Processes, policy: ShardablePolicy, acts: Sequence[Act], micro_batches: Sequence[Sequence[int]]
) -> list[Pass]:
    """The micro-batches split by `pass_key`, each key as often as the process with most of it; see `Parallel`.

    A process with fewer replays its shortest act of the key once more; one without any is sent another's.
    """
    if processes.size == 1:
        return [([acts[n] for n in members], members) for members in micro_batches]
    own: dict[str, list[list[int]]] = {}
    for members in micro_batches:
        keys = [policy.pass_key(acts[n]) for n in members]
        for key in dict.fromkeys(keys):
            own.setdefault(key, []).append([n for n, other in zip(members, keys, strict=True) if other == key])
    counts = processes.all_gather({key: len(batches) for key, batches in own.items()})
    passes: list[Pass] = []
    for key in sorted({key for count in counts for key in count}):
        batches = own.get(key, [])
        passes += [([acts[n] for n in members], members) for members in batches]
        fillers = [acts[n] for members in batches for n in members]
        filler = min(fillers, key=policy.num_tokens) if fillers else None
        if any(key not in count for count in counts):
            filler = _sent(processes, filler)
        assert filler is not None
        passes += [([filler], None)] * (max(count.get(key, 0) for count in counts) - len(batches))
    return passes


def _sent(processes: Processes, act: Act | None) -> Act:
    """The act of the first process that has one."""
    first = processes.all_gather(act is not None).index(True)
    sent = processes.all_gather(act if processes.rank == first else None)[first]
    assert sent is not None
    return act or sent
