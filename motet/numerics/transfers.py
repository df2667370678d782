"""Copies between the host and a device that make neither wait for the other more often than needed.

On a GPU kernels are queued and the program goes on; `tensor.item()`, `tolist()` and copies of pageable memory wait
until the queue is empty, and the GPU then idles until the next kernel arrives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor


def fetch(values: Sequence[Tensor | float]) -> list[float]:
    """0-d tensors and plain numbers as floats, exactly; the host waits once per device.

    On MPS, which has no float64, counts beyond 2^24 are rounded.
    """
    fetched = [0.0 if isinstance(value, Tensor) else float(value) for value in values]
    places: dict[torch.device, dict[torch.dtype, list[int]]] = {}
    for place, value in enumerate(values):
        if isinstance(value, Tensor):
            places.setdefault(value.device, {}).setdefault(value.dtype, []).append(place)
    for device, by_dtype in places.items():
        wide = torch.float32 if device.type == "mps" else torch.float64
        own = [torch.stack([cast(Tensor, values[n]).detach() for n in part]).to(wide) for part in by_dtype.values()]
        numbers = cast("list[float]", torch.cat(own).tolist())  # pyright: ignore[reportUnknownMemberType]
        for place, number in zip((n for part in by_dtype.values() for n in part), numbers, strict=True):
            fetched[place] = number
    return fetched


def to_device(tensor: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor on a device, in a type if one is given. From the host it is copied out of pinned memory: nothing waits.
    MPS has no pinned memory.
    """
    tensor = tensor if dtype is None else tensor.to(dtype)
    if tensor.device.type != "cpu" or device.type in ("cpu", "mps"):
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def index_on(device: torch.device, places: Sequence[int]) -> Int[Tensor, "N"]:
    """Places as an index tensor on a device."""
    return to_device(torch.tensor(places, dtype=torch.long), device)
