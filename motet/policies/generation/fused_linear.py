"""A linear layer of the snapshot, with the fastest matrix product that this machine has for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

PACKED_FROM = 1 << 20
"""Multiply-adds from which oneDNN's packed product is worth its call: it costs 8 microseconds more than a plain one."""

SMALL_WEIGHT, MANY_ROWS = 1 << 17, 16
"""Numbers in a weight up to which MKL's product with a transposed copy of it is the faster one on an Intel processor
with AVX-512 (measured on a Sapphire Rapids: 10 of 25 microseconds less a product). Without a bias and from these rows
on all three ways to multiply give the same bits there."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """What LoRA adds to the output features `rows` of a projection: `x -> (x A^T) B^T`, the scale within B."""

    rows: slice
    down: Float[Tensor, "I R"]  # A^T
    up: Float[Tensor, "R o"]  # B^T

    def add_to(self, outputs: Float[Tensor, "M O"], inputs: Float[Tensor, "M I"]) -> None:
        """In place."""
        outputs[:, self.rows].addmm_(inputs @ self.down, self.up)


@dataclass(frozen=True, eq=False)
class FusedLinear:
    """`x -> x W^T + b`. `transposed` is a view of W, `copied` a copy of that view, `packed` W in oneDNN's own order;
    the last two are None where they are not used.

    `adapters` are kept beside a W that is too coarse for them: in bfloat16 most changes by a small adapter are
    smaller than half a step of the number that they are added to.
    """

    weight: Float[Tensor, "O I"]
    transposed: Float[Tensor, "I O"]
    bias: Float[Tensor, "O"] | None
    packed: Tensor | None
    copied: Float[Tensor, "I O"] | None = None
    adapters: tuple[Adapter, ...] = ()

    @classmethod
    def of(
        cls, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None, adapters: Sequence[Adapter] = ()
    ) -> FusedLinear:
        """A projection by these weights, packed where that is possible."""
        copied = weight.t().contiguous() if bias is None and _favours_copy(weight) else None
        return cls(weight, weight.t(), bias, _packed(weight) if copied is None else None, copied, tuple(adapters))

    def __call__(self, inputs: Float[Tensor, "M I"]) -> Float[Tensor, "M O"]:
        """`[M, O]`."""
        return self._adapted(self._product(inputs), inputs)

    def added_to(self, residual: Float[Tensor, "M O"], inputs: Float[Tensor, "M I"]) -> Float[Tensor, "M O"]:
        """`residual + self(inputs)`; a residual in a wider type than the weights is added in its own."""
        if residual.dtype != self.weight.dtype:
            return residual + self(inputs)
        return self._adapted(self._sum(residual, inputs), inputs)

    def _adapted(self, outputs: Float[Tensor, "M O"], inputs: Float[Tensor, "M I"]) -> Float[Tensor, "M O"]:
        for adapter in self.adapters:
            adapter.add_to(outputs, inputs)
        return outputs

    def _product(self, inputs: Float[Tensor, "M I"]) -> Float[Tensor, "M O"]:
        if self.packed is None or len(inputs) * self.weight.numel() < PACKED_FROM:
            if self.bias is None:
                return torch.mm(inputs, self._factor(inputs))
            return torch.addmm(self.bias, inputs, self._factor(inputs))
        return torch.ops.mkldnn._linear_pointwise(inputs, self.packed, self.bias, "none", [], "")

    def _factor(self, inputs: Float[Tensor, "M I"]) -> Float[Tensor, "I O"]:
        return self.transposed if self.copied is None or len(inputs) < MANY_ROWS else self.copied

    def _sum(self, residual: Float[Tensor, "M O"], inputs: Float[Tensor, "M I"]) -> Float[Tensor, "M O"]:
        if self.packed is None or len(inputs) * self.weight.numel() < PACKED_FROM:
            total = torch.addmm(residual, inputs, self._factor(inputs))  # the residual rides along in the product
            return total if self.bias is None else total.add_(self.bias)
        return torch.ops.mkldnn._linear_pointwise(inputs, self.packed, self.bias, "none", [], "").add_(residual)


def _favours_copy(weight: Float[Tensor, "O I"]) -> bool:
    """Whether MKL's product with a transposed copy of this weight is this machine's fastest."""
    small = weight.device.type == "cpu" and weight.dtype == torch.float32 and weight.numel() <= SMALL_WEIGHT
    return small and torch.backends.cpu.get_cpu_capability() == "AVX512" and _mkl_on_intel()


@cache
def _mkl_on_intel() -> bool:
    """As Linux names the processor; elsewhere, where nothing was measured, False."""
    try:
        return torch.backends.mkl.is_available() and "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False


def _packed(weight: Float[Tensor, "O I"]) -> Tensor | None:
    """The weight for oneDNN, or None.

    torch multiplies float32 with MKL. oneDNN was twice as fast from 128 rows on on an AMD processor with AVX-512, and
    for larger weights on an Intel one. These are the operators that torch's inductor calls; not being public, they are
    guarded.
    """
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not torch.backends.mkldnn.is_available():
        return None
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return None  # not measured elsewhere
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        torch.ops.mkldnn._linear_pointwise(weight[:1], packed, None, "none", [], "")
    except (AttributeError, RuntimeError):
        return None
    return packed
