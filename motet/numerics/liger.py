"""Log-probs by Liger's fused linear cross entropy (Hsu et al., arXiv 2410.10989), where that is exactly what is asked.

The package `liger-kernel` computes `-log softmax(W h)[action]` of every row in chunks with a Triton kernel, and its
gradient. It needs a GPU. It does not support top-k, top-p, min-p, guidance or entropy: those go through motet's own
chunks.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

VARIABLE = "MOTET_LIGER"
"""Environment variable: 0 never uses Liger, 1 demands it; unset, it is used where it is installed."""
OLDEST = (0, 8, 2)
"""Earlier versions sum the gradient of the head before they weigh it by the gradient of each row's loss."""


@cache
def installed_version() -> str | None:
    """The version of liger-kernel, None where it is missing."""
    try:
        return version("liger-kernel")
    except PackageNotFoundError:
        return None


def is_new_enough(found: str) -> bool:
    """Whether a version gives the right gradient of every row."""
    numbers = [int(part) for part in found.split(".")[:3] if part.isdigit()]
    return tuple(numbers) >= OLDEST


def uses_liger() -> bool:
    """Whether log-probs on a GPU go through Liger where it can compute them."""
    found = installed_version()
    return os.environ.get(VARIABLE) != "0" and found is not None and is_new_enough(found)


def liger_log_probs(
    hidden: Float[Tensor, "A D"], head: nn.Linear, actions: Int[Tensor, "A"], temperature: float
) -> Float[Tensor, "A"]:
    """`log softmax(head(hidden) / temperature)[action]` of each row, float32, with gradient.

    The head is cast to the compute type once, and its gradient is summed in float32.
    """
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else head.weight.dtype
    fused: Any = import_module("liger_kernel.transformers.functional").liger_fused_linear_cross_entropy
    given = cast("Tensor | None", head.bias)
    rows, bias = hidden / temperature, None if given is None else (given / temperature).to(dtype)
    with torch.autocast(device, enabled=False):
        loss: Tensor = fused(
            rows.to(dtype), head.weight.to(dtype), actions, bias, reduction="none", accum_dtype=torch.float32
        )
    return -loss.float()
