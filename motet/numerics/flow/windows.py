"""Which denoising steps are stochastic, and so actions: a window of them; the others follow the ODE.

MixGRPO (arXiv 2507.21802) samples and trains only the steps of a window that slides from noise to picture as training
goes on; Flow-GRPO-Fast draws its window at random. The published settings are MixGRPO's size 4, stride 1 and 25
iterations per place of 25 steps, Flow-GRPO-Fast's size 2 or 3 in the first half of the steps.
"""

from __future__ import annotations

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
