"""Operations and saved bytes of a module, counted by torch while it runs without numbers, or on real tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode


def count_flops(work: Callable[[], object]) -> float:
    """Operations of products and convolutions, counted by torch while a module runs on the meta device."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return float(counter.get_total_flops())


@contextmanager
def fake_tensors() -> Iterator[None]:
    """Tensors with shapes and types, as on a CPU, and without numbers: attention is the fused one, which keeps no
    scores, and which the meta device does not have.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        yield


@dataclass(frozen=True)
class SavedBytes:
    """What a forward pass keeps: per row of the batch, and of weights in the compute type once."""

    per_row: float
    casts: float


def saved_bytes(work: Callable[[int], object], parameters: Iterable[Tensor], dtype: str) -> SavedBytes:
    """`work(rows)` runs the forward pass of so many rows; what one and two rows keep is told apart."""
    own = list(parameters)
    one, two = (kept_bytes(lambda rows=rows: work(rows), own, dtype) for rows in (1, 2))
    return SavedBytes(two - one, max(0.0, 2 * one - two))


def kept_bytes(work: Callable[[], object], parameters: Iterable[Tensor], dtype: str) -> float:
    """Bytes of distinct storages that are saved for the backward pass, those of parameters apart."""
    own = {parameter.untyped_storage()._cdata for parameter in parameters}
    kept: dict[int, Any] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage  # held, so that its address is not used again
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), autocast:
        work()
    return float(sum(storage.nbytes() for storage in kept.values()))
