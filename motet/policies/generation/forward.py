"""Forward passes of the language model over embedded prompts and what continues them, by transformers' own modules.

Prompts are padded on the right, where a causal model never looks, so a prefill needs no mask; what continues them
looks at the prompt's own columns only. With M-RoPE, text after a prompt goes on from one past its largest position,
with the same number on all three axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from motet.numerics.transfers import index_on
from motet.policies.generation.adapter import EmbeddedPrompt
from motet.policies.generation.shared_prefix import PrefixKeysAndValues, ReadOnlyPrefix
from motet.policies.versions import read_with_cache


@dataclass(frozen=True, eq=False)
class PrefillOutput:
    """U distinct prompts after one forward pass: their hidden states, and what continuing them needs.

    `cache` is transformers'. What stands behind a prompt's own length is padding; `padded` says whether there is any.
    `axes` is the number of position axes of M-RoPE, None for plain positions.
    """

    language: Any
    hidden: Float[Tensor, "U T D"]
    cache: Any
    lengths: Int[Tensor, "U"]
    next_positions: Int[Tensor, "U"]
    padded: bool
    axes: int | None

    @property
    def last(self) -> Float[Tensor, "U D"]:
        """The hidden state of each prompt's last token, which predicts what comes first after it."""
        return self.hidden[torch.arange(len(self.lengths), device=self.lengths.device), self.lengths - 1]

    def continued(self, owner: Int[Tensor, "R"]) -> KVCacheContinuation:
        """R sequences, the r-th of which goes on from prompt `owner[r]`, token by token."""
        cache = DynamicCache()
        for number, layer in enumerate(self.cache.layers):
            cache.update(layer.keys[owner], layer.values[owner], number)
        return self._continuation(cache, owner)

    def extended(self, owner: Int[Tensor, "R"], vectors: Float[Tensor, "R N D"]) -> Float[Tensor, "R N D"]:
        """Hidden states of N vectors after prompt `owner[r]` for each of R rows; gradients reach the prompts."""
        return self._continuation(ReadOnlyPrefix(self.cache, owner), owner).extend(vectors)

    def _continuation(self, cache: Any, owner: Int[Tensor, "R"]) -> KVCacheContinuation:
        columns = torch.arange(self.hidden.shape[1], device=owner.device)
        seen = columns < self.lengths[owner].unsqueeze(1) if self.padded else None
        return KVCacheContinuation(self.language, cache, seen, self.next_positions[owner], self.axes)


class KVCacheContinuation:
    """Sequences that grow: a `motet.policies.generation.DecodingState` over transformers' own cache.

    `seen` is True at the cached columns that a row may look at, None where it may look at all; `positions` is where
    each row goes on, on every one of `axes`.
    """

    def __init__(
        self,
        language: Any,
        cache: Any,
        seen: Bool[Tensor, "R T"] | None,
        positions: Int[Tensor, "R"],
        axes: int | None,
    ) -> None:
        self.language, self.cache, self.seen = language, cache, seen
        self.positions, self.axes = positions, axes

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
            attention_mask=self._mask(count),
            position_ids=positions if self.axes is None else positions.expand(self.axes, -1, -1),
        ).last_hidden_state

    def _mask(self, count: int) -> Tensor | None:
        """What transformers is told of `seen` for so many new vectors.

        Of a 2D mask it asks, for one vector, whether all columns are seen: a wait for the device per token. A 4D mask
        it takes as it is.
        """
        if self.seen is None or count > 1 or self.language.config._attn_implementation != "sdpa":
            return None if self.seen is None else self.seen.long()
        return self.seen[:, None, None]

    def step(self, embeddings: Float[Tensor, "R D"]) -> Float[Tensor, "R D"]:
        """Append one token to every row; returns its hidden state."""
        return self.extend(embeddings.unsqueeze(1)).squeeze(1)

    def compact(self, active: Int[Tensor, "R2"]) -> Int[Tensor, "R2"]:
        """Drop all rows but `active`; returns for every remaining row the row it was before."""
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[active], layer.values[active]
        self.seen = None if self.seen is None else self.seen[active]
        self.positions = self.positions[active]
        return active


def prefill(language: Any, prompts: Sequence[EmbeddedPrompt]) -> PrefillOutput:
    """Encode distinct prompts in one pass and keep their keys and values."""
    cache = PrefixKeysAndValues()
    hidden = read_with_cache(language, cache, **_inputs(prompts)).last_hidden_state
    lengths = [len(prompt.vectors) for prompt in prompts]
    following = [prompt.next_position for prompt in prompts]
    return PrefillOutput(
        language,
        hidden,
        cache,
        index_on(hidden.device, lengths),
        index_on(hidden.device, following),
        padded=min(lengths) < max(lengths),
        axes=None if prompts[0].positions is None else len(prompts[0].positions),
    )


def forward_rows(
    language: Any, prompts: Sequence[EmbeddedPrompt], tails: Sequence[Float[Tensor, "_ D"]]
) -> Float[Tensor, "R T D"]:
    """Hidden states of rows, each a prompt followed by vectors; without a cache, so activations may be recomputed."""
    return language(**_inputs(prompts, tails), use_cache=False).last_hidden_state


def _inputs(prompts: Sequence[EmbeddedPrompt], tails: Sequence[Tensor] | None = None) -> dict[str, Any]:
    """Arguments of the language model for rows of prompts, each followed by its tail; padded on the right."""
    after = [prompt.vectors[:0] for prompt in prompts] if tails is None else tails
    rows = [torch.cat([prompt.vectors, tail]) for prompt, tail in zip(prompts, after, strict=True)]
    inputs: dict[str, Any] = {"inputs_embeds": pad_sequence(rows, batch_first=True)}
    positions: list[Tensor] = []
    for prompt, tail in zip(prompts, after, strict=True):
        if prompt.positions is not None:
            further = prompt.next_position + torch.arange(len(tail), device=tail.device)
            positions.append(torch.cat([prompt.positions, further.expand(len(prompt.positions), -1)], dim=1).T)
    if positions:
        inputs["position_ids"] = pad_sequence(positions, batch_first=True).permute(2, 0, 1)
    if any(prompt.deep for prompt in prompts):
        inputs |= _deepstack_inputs(prompts, inputs["inputs_embeds"])
    return inputs


def _deepstack_inputs(prompts: Sequence[EmbeddedPrompt], rows: Float[Tensor, "R T D"]) -> dict[str, Any]:
    """What is added to the hidden states of the first layers, as one tensor of the size of `rows` per layer.

    transformers indexes hidden states with `visual_pos_masks`, adds, and writes back. With the mask of image tokens it
    would wait for the device four times a layer; here it is given all rows, and zeros where nothing is added.
    """
    count, longest, width = rows.shape
    holders = [(row, prompt) for row, prompt in enumerate(prompts) if prompt.deep and prompt.visual is not None]
    places = torch.cat([row * longest + prompt.visual for row, prompt in holders if prompt.visual is not None])
    layers = (torch.cat(layer).to(rows.dtype) for layer in zip(*(prompt.deep for _, prompt in holders), strict=True))
    empty = rows.new_zeros(count * longest, width)
    return {
        "visual_pos_masks": torch.arange(count, device=rows.device),
        "deepstack_visual_embeds": [empty.index_copy(0, places, layer).view(rows.shape) for layer in layers],
    }
