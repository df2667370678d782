"""Parameters that FSDP2 shards (torch's DTensor): the part that this process holds, and the whole."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether this process holds only a part of it."""
    return hasattr(tensor, "full_tensor")


def local_data(tensor: Tensor) -> Tensor:
    """What this process holds, without gradient; writing to it in place changes the tensor.

    FSDP2 gathers its parameters from this memory: another tensor assigned to `.data` would change nothing.
    """
    sharded: Any = tensor
    return sharded.detach().to_local() if is_sharded(tensor) else tensor.data


def full_data(tensor: Tensor) -> Tensor:
    """The whole, without gradient. Of a sharded tensor a copy: a collective, which all processes call."""
    sharded: Any = tensor
    return sharded.detach().full_tensor() if is_sharded(tensor) else tensor.data
