"""The decoder's forward pass over a snapshot: `prefill` reads the prefixes once, `step` appends one token per row.

Letters beside the package's own: U distinct prefixes, F branches of a sequence (1, or 2 with guidance), R = B * F rows,
H heads, K key/value heads, E width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from motet.policies.generation.fused_weights import FusedLlama, LayerWeights


@dataclass(frozen=True, eq=False)
class LayerCache:
    """One layer's keys and values, and the views of them that a step reads and writes: made once, not once per step."""

    keys_values: Float[Tensor, "2 B F K T E"]
    slots: Float[Tensor, "R 2 K T E"]
    keys: Float[Tensor, "M E T"]  # M = R * K
    values: Float[Tensor, "M T E"]

    @classmethod
    def over(cls, keys_values: Float[Tensor, "2 B F K T E"]) -> LayerCache:
        """The views of this storage; it may be the head of a larger one."""
        keys, values = keys_values.flatten(1, 3)
        return cls(keys_values, keys_values.flatten(1, 2).transpose(0, 1), keys.transpose(1, 2), values)


@dataclass(eq=False)
class Cache:
    """What the rows being decoded remember. Branches are a dimension of their own, so that a pair moves as one.

    `bias` holds -inf at the padded prefix columns, None when there are none. `positions` are the rotary positions of
    the token that `step` takes next, `column` the cache column it is written to.
    """

    layers: list[LayerCache]
    bias: Float[Tensor, "B F K 1 T"] | None
    positions: Int[Tensor, "B F"]
    cos: Float[Tensor, "T 1 E"]
    sin: Float[Tensor, "T 1 E"]
    prefix_length: int
    column: int

    def compact(self, active: Int[Tensor, "B2"]) -> Int[Tensor, "B2"]:
        """Drop all slots but `active` (ascending). Returns for every remaining slot the slot it was before.

        Only active slots beyond the new size move, into the holes below it: a fraction of the copy that an index_select
        of the cache would be.
        """
        size = len(active)
        order = torch.arange(size, device=active.device)
        movers = active[active >= size]
        holes = order[~torch.isin(order, active)]
        order[holes] = movers
        for i, layer in enumerate(self.layers):
            filled = layer.keys_values[..., : self.column, :]
            filled[:, holes] = filled[:, movers]
            self.layers[i] = LayerCache.over(layer.keys_values[:, :size])
        self.positions = self.positions[order]
        self.bias = None if self.bias is None else self.bias[order]
        return order


def prefill(
    snapshot: FusedLlama,
    embeddings: Float[Tensor, "U T D"],
    mask: Bool[Tensor, "U T"],
    rows: Int[Tensor, "B F"],
    capacity: int,
) -> tuple[Float[Tensor, "R D"], Cache]:
    """Read every prefix once and hand its keys and values to the rows that continue it.

    Returns the last hidden state of each row, normed, and a cache with room for `capacity` tokens.
    """
    num_prefixes, length, width = embeddings.shape
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    cos, sin = snapshot.rotary_tables(capacity)
    angles = cos[positions.flatten()], sin[positions.flatten()]
    allowed = None if bool(mask.all()) else _allowed(mask)
    hidden = embeddings.to(snapshot.norm.dtype).reshape(-1, width)
    caches = []
    for layer in snapshot.layers:
        qkv = project(snapshot, layer, hidden, *angles).view(num_prefixes, length, -1, snapshot.head_dim)
        queries, keys_values = qkv.transpose(1, 2).tensor_split([snapshot.heads], dim=1)
        keys, values = keys_values.chunk(2, dim=1)
        cache = keys.new_empty(2, *rows.shape, snapshot.kv_heads, capacity, snapshot.head_dim)
        cache[0, ..., :length, :] = keys[rows]
        cache[1, ..., :length, :] = values[rows]
        caches.append(LayerCache.over(cache))
        if layer is snapshot.layers[-1]:  # nobody reads what the last layer makes of earlier positions
            queries, hidden = queries[:, :, -1:], hidden.view(num_prefixes, length, width)[:, -1]
            allowed = mask[:, None, None] if allowed is not None else None
        mixed = F.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=allowed,
            is_causal=allowed is None and queries.shape[2] > 1,
            enable_gqa=snapshot.kv_heads < snapshot.heads,
        )
        hidden = finish(snapshot, layer, hidden, mixed.transpose(1, 2).flatten(0, 1).flatten(1))
    hidden = rms_norm(snapshot, hidden, snapshot.norm)
    bias = None if allowed is None else _bias(mask[rows], snapshot, capacity)
    cache = Cache(caches, bias, positions[rows, -1] + 1, cos, sin, prefix_length=length, column=length)
    return hidden[rows.flatten()], cache


def step(snapshot: FusedLlama, cache: Cache, embeddings: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
    """Append one token to every row; returns its hidden state, normed."""
    hidden = embeddings.to(snapshot.norm.dtype)
    rows, heads, kv_heads, head_dim = len(hidden), snapshot.heads, snapshot.kv_heads, snapshot.head_dim
    positions = cache.positions.flatten()
    cos, sin = cache.cos[positions], cache.sin[positions]
    filled = cache.column + 1
    bias = None if cache.bias is None else cache.bias.view(rows * kv_heads, 1, -1)
    for layer, memory in zip(snapshot.layers, cache.layers, strict=True):
        qkv = project(snapshot, layer, hidden, cos, sin)
        memory.slots.select(3, cache.column).copy_(qkv.narrow(1, heads, 2 * kv_heads).view(rows, 2, kv_heads, head_dim))
        # The queries that share a key/value head are the rows of one small matrix.
        queries = qkv.narrow(1, 0, heads).reshape(rows * kv_heads, -1, head_dim)
        keys, values = memory.keys.narrow(2, 0, filled), memory.values.narrow(1, 0, filled)
        mixed = _attend(queries, keys, values, bias, cache.prefix_length)
        hidden = finish(snapshot, layer, hidden, mixed.view(rows, -1))
    cache.positions = cache.positions + 1
    cache.column = filled
    return rms_norm(snapshot, hidden, snapshot.norm)


def project(snapshot: FusedLlama, layer: LayerWeights, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Queries, keys and values `[M, H + 2K, E]` of hidden states `[M, D]`; the first two turned to their positions."""
    qkv = layer.qkv(rms_norm(snapshot, hidden, layer.attention_norm)).view(len(hidden), -1, snapshot.head_dim)
    turned = qkv.narrow(1, 0, snapshot.heads + snapshot.kv_heads)
    if layer.qk_norm is None and qkv.dtype == cos.dtype:
        rolled = turned.roll(snapshot.head_dim // 2, -1)
        turned.mul_(cos).addcmul_(rolled, sin)
        return qkv
    wide = turned.to(cos.dtype)
    if layer.qk_norm is not None:
        wide = torch.rms_norm(wide, (snapshot.head_dim,), None, snapshot.eps) * layer.qk_norm
    turned.copy_(wide * cos + wide.roll(snapshot.head_dim // 2, -1) * sin)  # rounded once, after both products
    return qkv


def finish(snapshot: FusedLlama, layer: LayerWeights, hidden: Tensor, mixed: Tensor) -> Tensor:
    """The rest of a layer after attention: output projection, MLP and both residuals, `[M, D]`."""
    hidden = layer.out.added_to(hidden, mixed)
    gate, up = layer.gate_up(rms_norm(snapshot, hidden, layer.mlp_norm)).chunk(2, dim=-1)
    return layer.down.added_to(hidden, F.silu(gate).mul_(up))


def _attend(
    queries: Float[Tensor, "M Q E"],
    keys: Float[Tensor, "M E T"],
    values: Float[Tensor, "M T E"],
    bias: Float[Tensor, "M 1 C"] | None,
    prefix_length: int,
) -> Float[Tensor, "M Q E"]:
    """Attention of one token per row over the T columns filled so far: M = R * K matrices of Q = H / K queries."""
    if queries.is_cpu and queries.dtype in (torch.float32, torch.float64):
        # 1.4-2x faster than the fused kernel for a single query on CPU; in low precision the scores would be rounded.
        scale = 1.0 / math.sqrt(queries.shape[-1])
        scores = torch.baddbmm(queries.new_empty(()), queries, keys, beta=0, alpha=scale)
        if bias is not None:
            scores[..., :prefix_length] += bias[..., :prefix_length]
        return torch.bmm(torch.softmax(scores, dim=-1), values)
    mask = None if bias is None else bias[..., : values.shape[1]].unsqueeze(1)
    keys = keys.transpose(1, 2)
    return F.scaled_dot_product_attention(queries[:, None], keys[:, None], values[:, None], attn_mask=mask)[:, 0]


def rms_norm(snapshot: FusedLlama, hidden: Tensor, weight: Tensor) -> Tensor:
    if hidden.is_cpu and hidden.dtype == snapshot.dtype == torch.float32:  # the steps of rms_norm, twice as fast
        inverse = torch.mean(hidden * hidden, -1, keepdim=True).add_(snapshot.eps).rsqrt_()
        return (hidden * inverse).mul_(weight)
    return torch.rms_norm(hidden, weight.shape, weight, snapshot.eps).to(snapshot.dtype)


def _allowed(mask: Bool[Tensor, "U T"]) -> Bool[Tensor, "U 1 T T"]:
    """Who may look where: at earlier, unpadded positions, and at itself, so that no padded row is empty (NaN)."""
    length = mask.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(length, dtype=torch.bool, device=mask.device)
    return (causal & mask[:, None, :] | itself)[:, None]


def _bias(mask: Bool[Tensor, "B F T"], snapshot: FusedLlama, capacity: int) -> Float[Tensor, "B F K 1 C"]:
    """0 where a cached column may be attended, -inf at padding; one copy per key/value head, as bmm wants it."""
    bias = torch.zeros(*mask.shape[:2], capacity, dtype=snapshot.dtype, device=mask.device)
    bias[..., : mask.shape[2]].masked_fill_(~mask, -torch.inf)
    return bias[:, :, None, None].expand(-1, -1, snapshot.kv_heads, -1, -1).contiguous()
