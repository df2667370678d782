"""Windows of stochastic denoising steps, which are the actions; the other steps follow the ODE.

MixGRPO (arXiv 2507.21802) samples and trains only the steps of a window that slides from noise to image during
training; Flow-GRPO-Fast samples its window at random. Published settings: MixGRPO uses size 4, stride 1 and 25
iterations per position for 25 steps, Flow-GRPO-Fast size 2 or 3 in the first half of the steps.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from motet.numerics.flow.schedules import check_times


def stochastic_steps(times: Float[Tensor, "S1"], start: int = 0, size: int | None = None) -> tuple[bool, ...]:
    """Which of the S steps of a schedule are actions: those with `start <= s < start + size`, except the last.

    `size` None: all from `start` on. The last step, to sigma 0, is never an action (see `motet.numerics.flow.steps`).
    Raises ValueError for a window without steps: an act without actions cannot be trained.
    """
    check_times(times)
    end = len(times) if size is None else start + size
    chosen = tuple(start <= step < end for step in range(len(times) - 2))
    if start < 0 or not any(chosen):
        raise ValueError(
            f"a window of size {size} from step {start} of {len(times) - 1} steps contains no stochastic step; start "
            "it earlier or make it larger."
        )
    return (*chosen, False)
