"""One decode step as a function of tensors alone: head, guidance, sampling, log-probs, embedding and all layers.

Nothing in it depends on a number that the host would have to read, and everything that it changes is changed in place,
so it can be compiled into one graph and captured as one CUDA graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from motet.core.sampling import Sampling
from motet.policies.generation.decode_loop import Embed, Head, choose_actions
from motet.policies.generation.fused_forward import finish, project, rms_norm
from motet.policies.generation.fused_weights import FusedLlama
from motet.policies.generation.static_cache import StaticCache


@dataclass(frozen=True, eq=False)
class SlotState:
    """What S slots have sampled: up to N actions of a sequence each, in storage that never moves.

    The last of the M = N + 1 columns takes what a finished slot goes on sampling, and is never read. `counts` are the
    actions of each slot so far.
    """

    uniforms: Float[Tensor, "S M"]
    ids: Int[Tensor, "S M"]
    log_probs: Float[Tensor, "S M"]
    behaviour: Float[Tensor, "S M"]
    counts: Int[Tensor, "S"]
    finished: Bool[Tensor, "S"]

    @classmethod
    def empty(cls, slots: int, num_actions: int, uniforms: Tensor) -> SlotState:
        """All slots finished; noise has the type and the device of `uniforms`."""
        device, shape = uniforms.device, (slots, num_actions + 1)
        return cls(
            torch.zeros(shape, dtype=uniforms.dtype, device=device),
            torch.zeros(shape, dtype=torch.long, device=device),
            torch.zeros(shape, device=device),
            torch.zeros(shape, device=device),
            torch.zeros(slots, dtype=torch.long, device=device),
            torch.ones(slots, dtype=torch.bool, device=device),
        )

    def restart(self, slot: int, uniforms: Float[Tensor, "N"]) -> None:
        """Let a slot begin a sequence with this noise."""
        self.uniforms[slot, :-1].copy_(uniforms)
        for table in (self.ids, self.log_probs, self.behaviour, self.counts):
            table[slot].fill_(0)
        self.finished[slot].fill_(False)


@dataclass(frozen=True, eq=False)
class StepModel:
    """What a step computes with: weights, head and embedding of the kind of act, and how actions are chosen."""

    language: FusedLlama
    head: Head
    embed: Embed
    sampling: Sampling
    stop_ids: Int[Tensor, "Z"] | None


def decode_step(model: StepModel, cache: StaticCache, slots: SlotState, width: int) -> None:
    """Sample the next action of every slot and append it to its rows. No row may have reached column `width`.

    The R rows are F branches (1, or 2 with guidance) for each of S slots.
    """
    num_slots, last = slots.ids.shape[0], slots.ids.shape[1] - 1
    logits = model.head(cache.hidden).float()
    logits = logits.view(num_slots, -1, logits.shape[-1])
    place = torch.where(slots.finished, last, slots.counts)[:, None]
    tokens, log_probs, behaviour = choose_actions(logits, slots.uniforms.gather(1, place).squeeze(1), model.sampling)
    slots.ids.scatter_(1, place, tokens[:, None])
    slots.log_probs.scatter_(1, place, log_probs[:, None])
    slots.behaviour.scatter_(1, place, behaviour[:, None])
    slots.counts.add_(~slots.finished)
    slots.finished.logical_or_(slots.counts >= last)
    if model.stop_ids is not None:
        slots.finished.logical_or_((tokens[:, None] == model.stop_ids).any(dim=1))
    branches = logits.shape[1]
    append(model, cache, slots, model.embed(tokens)[:, None].expand(-1, branches, -1).flatten(0, 1), width)


def append(model: StepModel, cache: StaticCache, slots: SlotState, vectors: Float[Tensor, "R D"], width: int) -> None:
    """Append a token to every row of the slots that are not finished; attention reads columns 0 .. width - 1."""
    language = model.language
    rows, kv_heads, head_dim = len(vectors), language.kv_heads, language.head_dim
    hidden = vectors.to(language.norm.dtype)
    cos, sin = cache.cos[cache.positions], cache.sin[cache.positions]
    seen = torch.arange(width, device=vectors.device) <= cache.columns[:, None]
    bias = torch.where(seen, 0.0, -torch.inf).to(language.dtype)[:, None, None]
    place = cache.columns.view(-1, 1, 1, 1).expand(-1, kv_heads, 1, head_dim)
    for layer, (keys, values) in zip(language.layers, cache.keys_values.transpose(0, 1), strict=True):
        qkv = project(language, layer, hidden, cos, sin)
        queries, key, value = qkv.split([language.heads, kv_heads, kv_heads], dim=1)
        keys.scatter_(2, place, key.unsqueeze(2))
        values.scatter_(2, place, value.unsqueeze(2))
        # The queries that share a key/value head are the rows of one small matrix; scores and softmax are float32.
        grouped = queries.reshape(rows, kv_heads, -1, head_dim)
        mixed = F.scaled_dot_product_attention(
            grouped, keys.narrow(2, 0, width), values.narrow(2, 0, width), attn_mask=bias
        )
        hidden = finish(language, layer, hidden, mixed.reshape(rows, -1))
    cache.hidden.copy_(rms_norm(language, hidden, language.norm))
    active = (~slots.finished).repeat_interleave(rows // len(slots.finished), output_size=rows)
    cache.columns.add_(active)
    cache.positions.add_(active)
