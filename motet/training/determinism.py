"""Backward passes that give the same gradient every time."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch


@contextmanager
def deterministic_backward(device: torch.device) -> Generator[None, None, None]:
    """On a CPU, sum in a fixed order whatever the threads do; elsewhere nothing changes.

    The gradient of `x[index]` adds up the gradients of all rows that use an element of x. torch does so in the order in
    which the threads get there, and float sums depend on it: runs of one seed diverged after 55 to 97 steps.
    """
    if device.type != "cpu":
        yield
        return
    deterministic = cast(Any, torch.utils).deterministic
    before, filling = torch.are_deterministic_algorithms_enabled(), deterministic.fill_uninitialized_memory
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    deterministic.fill_uninitialized_memory = False  # filling every new tensor takes time
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)
        deterministic.fill_uninitialized_memory = filling
