"""Which denoising steps are stochastic, and so actions: a window of them; the others follow the ODE.

MixGRPO (arXiv 2507.21802) samples and trains only the steps of a window that slides from noise to picture as training
goes on; Flow-GRPO-Fast draws its window at random. The published settings are MixGRPO's size 4, stride 1 and 25
iterations per place of 25 steps, Flow-GRPO-Fast's size 2 or 3 in the first half of the steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from motet.numerics.flow.schedules import check_times


def stochastic_steps(times: Float[Tensor, "S1"], start: int = 0, size: int | None = None) -> tuple[bool, ...]:
    """For each of the S steps of a schedule, whether it is an action: `start <= s < start + size` and not the last.

    `size` None: all from `start` on. The last step, to sigma 0, is never one (see `motet.numerics.flow.steps`).
    Raises ValueError for a window without any step: an act without actions cannot be trained.
    """
    check_times(times)
    end = len(times) if size is None else start + size
    chosen = tuple(start <= step < end for step in range(len(times) - 2))
    if start < 0 or not any(chosen):
        raise ValueError(f"no stochastic step in a window of size {size} from step {start} of {len(times) - 1} steps.")
    return (*chosen, False)


def window_starts(num_stochastic: int, size: int, stride: int) -> tuple[int, ...]:
    """Where a window of `size` stands as it slides over steps `0 .. num_stochastic - 1`: 0, stride, 2 stride, ...

    Windows are always full: the last one ends with the last step, even if the stride would carry it further.
    `num_stochastic` is `S - 1` for a schedule of S steps.
    """
    if not 1 <= size <= num_stochastic or stride < 1:
        raise ValueError(f"no window of size {size} and stride {stride} slides over {num_stochastic} steps.")
    last = num_stochastic - size
    return tuple(sorted({*range(0, last, stride), last}))


def progressive_start(iteration: int, starts: Sequence[int], *, interval: int) -> int:
    """Where the window stands at an iteration: `interval` iterations at each start, after the last one the first."""
    if iteration < 0 or interval < 1:
        raise ValueError(f"iteration {iteration}, interval {interval}: must be at least 0 and 1.")
    return starts[iteration // interval % len(starts)]


def random_start(uniform: float, starts: Sequence[int]) -> int:
    """One of the starts, all equally likely, from a number in [0, 1)."""
    return starts[min(int(uniform * len(starts)), len(starts) - 1)]
