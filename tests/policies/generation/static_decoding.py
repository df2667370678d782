"""The static engine on prefixes that are embedded already, as `motet.policies.generation.decode` takes them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from motet.core.trajectory import Sampling
from motet.numerics.transfers import index_on
from motet.policies.generation.adapter import EmbeddedPrompt
from motet.policies.generation.decode_loop import Decoded, Embed, Head, PromptEmbeddings
from motet.policies.generation.fused_weights import FusedLlama
from motet.policies.generation.static_cache import StaticCache, cache_shape
from motet.policies.generation.static_engine import BUCKET, StaticEngine
from motet.policies.generation.static_prefill import ContextStore
from motet.policies.generation.static_step import SlotState, StepModel


def decode_static(
    snapshot: FusedLlama,
    prefixes: PromptEmbeddings,
    rows: Int[Tensor, "B"],
    null_rows: Int[Tensor, "B"] | None,
    *,
    head: Head,
    embed: Embed,
    uniforms: Float[Tensor, "B N"],
    sampling: Sampling,
    stop_ids: Sequence[int] = (),
    slots: int | None = None,
) -> Decoded:
    """As `decode`, `slots` sequences at once."""
    branches = [rows] if null_rows is None or sampling.guidance == "none" else [rows, null_rows]
    keys: list[tuple[Hashable, ...]] = list(zip(*(part.tolist() for part in branches), strict=True))
    lengths = prefixes.mask.sum(dim=1).tolist()
    count, num_actions = min(slots or len(rows), len(rows)), uniforms.shape[1]
    columns = max(lengths) + num_actions
    capacity, num_rows = -(-columns // BUCKET) * BUCKET, count * len(branches)
    storage = torch.zeros(
        cache_shape(snapshot, num_rows, capacity).numel(), dtype=snapshot.dtype, device=uniforms.device
    )
    stops = index_on(uniforms.device, stop_ids) if stop_ids else None
    engine = StaticEngine(
        StepModel(snapshot, head, embed, sampling, stops),
        StaticCache.over(snapshot, storage, num_rows, capacity),
        SlotState.empty(count, num_actions, uniforms),
    )

    def embed_contexts(wanted: Sequence[Any]) -> list[EmbeddedPrompt]:
        vectors = [prefixes.embeddings[row][prefixes.mask[row]] for row in wanted]
        return [EmbeddedPrompt(own, len(own)) for own in vectors]

    return engine.run(ContextStore(snapshot, [key for own in keys for key in own], embed_contexts), keys, uniforms)
