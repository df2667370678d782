"""Keys and values in storage that never moves, so that a decode step can be captured as one graph.

Every row has its own column: what it holds starts at column 0, without padding, and ends before `columns[r]`. Positions
and columns are tensors, so a step is the same function of tensors at any length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from motet.policies.generation.fused_weights import FusedLlama


@dataclass(frozen=True, eq=False)
class PrefilledContext:
    """A context after its forward pass: keys and values of all layers, and what continuing it needs."""

    keys_values: Float[Tensor, "2 L K T E"]
    hidden: Float[Tensor, "D"]  # of its last token, normed
    next_position: int

    @property
    def length(self) -> int:
        """Tokens of the context."""
        return self.keys_values.shape[3]


@dataclass(frozen=True, eq=False)
class StaticCache:
    """R rows with room for C tokens each; all tensors are written in place.

    `columns` is where the next token of a row is written, `positions` its rotary position, `hidden` the normed hidden
    state of its last one. Columns from `columns[r]` on hold whatever was there before; they must be finite numbers.
    """

    keys_values: Float[Tensor, "2 L R K C E"]
    columns: Int[Tensor, "R"]
    positions: Int[Tensor, "R"]
    hidden: Float[Tensor, "R D"]
    cos: Float[Tensor, "C 1 E"]
    sin: Float[Tensor, "C 1 E"]

    @classmethod
    def over(cls, snapshot: FusedLlama, storage: Float[Tensor, "_"], rows: int, capacity: int) -> StaticCache:
        """A cache over the head of a flat tensor, which holds no NaN."""
        shape = cache_shape(snapshot, rows, capacity)
        return cls(
            storage[: shape.numel()].view(shape),
            torch.zeros(rows, dtype=torch.long, device=storage.device),
            torch.zeros(rows, dtype=torch.long, device=storage.device),
            torch.zeros(rows, len(snapshot.norm), dtype=snapshot.dtype, device=storage.device),
            *snapshot.rotary_tables(capacity),
        )

    @property
    def capacity(self) -> int:
        """Tokens that a row has room for."""
        return self.keys_values.shape[4]

    def place(self, rows: Sequence[int], contexts: Sequence[PrefilledContext]) -> None:
        """Let each row continue a context, whatever it held before; without a host-to-device copy."""
        for row, context in zip(rows, contexts, strict=True):
            self.keys_values[:, :, row, :, : context.length].copy_(context.keys_values)
            self.hidden[row].copy_(context.hidden)
            self.columns[row].fill_(context.length)
            self.positions[row].fill_(context.next_position)


def cache_shape(snapshot: FusedLlama, rows: int, capacity: int) -> torch.Size:
    """`[2, L, R, K, C, E]` of the keys and values of so many rows and tokens."""
    return torch.Size((2, len(snapshot.layers), rows, snapshot.kv_heads, capacity, snapshot.head_dim))
