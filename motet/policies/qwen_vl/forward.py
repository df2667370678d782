"""Forward passes of the language model over embedded contexts and what continues them.

Contexts are padded on the right, where a causal model never looks, so a prefill needs no mask; what continues them
looks at the prefix's own columns only. Positions are M-RoPE's: text after a context goes on from one past its largest
position, with the same number on all three axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from motet.policies.qwen_vl.embeddings import Context
from motet.policies.versions import read_with_cache


@dataclass(frozen=True, eq=False)
class PrefillOutput:
    """U distinct contexts, read once: their hidden states, and what continuing them needs.

    `cache` is transformers'. What stands behind a context's own length is padding; `padded` says whether there is any.
    """

    language: Any
    hidden: Float[Tensor, "U T D"]
    cache: Any
    lengths: Int[Tensor, "U"]
    next_positions: Int[Tensor, "U"]
    padded: bool

    @property
    def last(self) -> Float[Tensor, "U D"]:
        """The hidden state of each context's last token, which predicts what comes first after it."""
        return self.hidden[torch.arange(len(self.lengths), device=self.lengths.device), self.lengths - 1]

    def continued(self, owner: Int[Tensor, "R"]) -> KVCacheContinuation:
        """R sequences, the r-th of which goes on from context `owner[r]`; gradients reach the contexts."""
        cache = DynamicCache()
        for number, layer in enumerate(self.cache.layers):
            cache.update(layer.keys[owner], layer.values[owner], number)
        columns = torch.arange(self.hidden.shape[1], device=owner.device)
        seen = columns < self.lengths[owner].unsqueeze(1) if self.padded else None
        return KVCacheContinuation(self.language, cache, seen, self.next_positions[owner])


class KVCacheContinuation:
    """Sequences that grow: a `motet.policies.generation.Memory` over transformers' own cache.

    `seen` is True at the cached columns that a row may look at, None where it may look at all; `positions` is where
    each row goes on.
    """

    def __init__(
        self, language: Any, cache: Any, seen: Bool[Tensor, "R T"] | None, positions: Int[Tensor, "R"]
    ) -> None:
        self.language, self.cache, self.seen, self.positions = language, cache, seen, positions

    def extend(self, vectors: Float[Tensor, "R N D"]) -> Float[Tensor, "R N D"]:
        """Append N vectors to every row; returns their hidden states."""
        rows, count, _ = vectors.shape
        if self.seen is not None:
            self.seen = torch.cat([self.seen, self.seen.new_ones(rows, count)], dim=1)
        positions = self.positions.unsqueeze(1) + torch.arange(count, device=self.positions.device)
        self.positions = self.positions + count
        return read_with_cache(
            self.language,
            self.cache,
            inputs_embeds=vectors,
            attention_mask=None if self.seen is None else self.seen.long(),
            position_ids=positions.expand(3, -1, -1),
        ).last_hidden_state

    def step(self, embeddings: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
        """Append one token to every row; returns its hidden state."""
        return self.extend(embeddings.unsqueeze(1)).squeeze(1)

    def keep(self, alive: Int[Tensor, "R2"]) -> Int[Tensor, "R2"]:
        """Drop all rows but `alive`; returns for every remaining row the row it was before."""
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[alive], layer.values[alive]
        self.seen = None if self.seen is None else self.seen[alive]
        self.positions = self.positions[alive]
        return alive


def prefill(language: Any, contexts: Sequence[Context]) -> PrefillOutput:
    """Read distinct contexts in one pass and keep their keys and values."""
    cache = DynamicCache()
    hidden = read_with_cache(language, cache, **_inputs(contexts)).last_hidden_state
    lengths = [len(context.vectors) for context in contexts]
    following = [context.next_position for context in contexts]
    return PrefillOutput(
        language,
        hidden,
        cache,
        torch.tensor(lengths, device=hidden.device),
        torch.tensor(following, device=hidden.device),
        padded=min(lengths) < max(lengths),
    )


def forward_rows(
    language: Any, contexts: Sequence[Context], tails: Sequence[Float[Tensor, "_ D"]]
) -> Float[Tensor, "R T D"]:
    """Hidden states of rows, each a context followed by vectors; without a cache, so activations may be recomputed."""
    return language(**_inputs(contexts, tails), use_cache=False).last_hidden_state


@contextmanager
def without_checkpointing(language: Any) -> Iterator[None]:
    """Inside, no layer recomputes its activations: transformers would take the cache from one that does."""
    recomputing = [m for m in language.modules() if m.training and getattr(m, "gradient_checkpointing", False)]
    try:
        for layer in recomputing:
            layer.training = False
        yield
    finally:
        for layer in recomputing:
            layer.training = True


def _inputs(contexts: Sequence[Context], tails: Sequence[Tensor] | None = None) -> dict[str, Any]:
    """Arguments of the language model for rows of contexts, each followed by its tail; padded on the right."""
    after = [context.vectors[:0] for context in contexts] if tails is None else tails
    rows = [torch.cat([context.vectors, tail]) for context, tail in zip(contexts, after, strict=True)]
    positions = []
    for context, tail in zip(contexts, after, strict=True):
        further = context.next_position + torch.arange(len(tail), device=tail.device)
        positions.append(torch.cat([context.positions, further.expand(3, -1)], dim=1).T)
    inputs: dict[str, Any] = {
        "inputs_embeds": pad_sequence(rows, batch_first=True),
        "position_ids": pad_sequence(positions, batch_first=True).permute(2, 0, 1),
    }
    deep = [context.deep for context in contexts if context.deep]
    if deep:
        visual = torch.zeros(inputs["inputs_embeds"].shape[:2], dtype=torch.bool, device=rows[0].device)
        for row, context in enumerate(contexts):
            visual[row, : len(context.visual)] = context.visual
        inputs["visual_pos_masks"] = visual
        inputs["deepstack_visual_embeds"] = [torch.cat(layer) for layer in zip(*deep, strict=True)]
    return inputs
