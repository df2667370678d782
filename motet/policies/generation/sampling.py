"""From encoded prompts to sampled tokens: by the fused sampler for Llamas, by transformers' own modules otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from motet.core.trajectory import Encoding, Sampling
from motet.numerics.transfers import index_on
from motet.policies.generation.adapter import LanguageModelAdapter
from motet.policies.generation.decode_loop import Decoded, Embed, Head, PromptEmbeddings, decode, generate_from_state
from motet.policies.generation.forward import prefill
from motet.policies.generation.fused_weights import FusedLlama, is_sharded
from motet.policies.generation.shared_prefix import without_checkpointing


@dataclass(frozen=True, eq=False)
class FusedModel:
    """What `decode` needs of a model: its fused weights, and head and embedding of each kind of act in their dtype.

    Good until the model's next update.
    """

    language: FusedLlama
    modules: Mapping[str, tuple[Head, Embed]]

    @classmethod
    def from_adapter(cls, adapter: LanguageModelAdapter, dtype: torch.dtype) -> FusedModel:
        """In a compute type, whatever that of the weights is; its own copy of weights that FSDP2 shards."""
        clone = is_sharded(adapter.model)
        language = FusedLlama.from_model(adapter.language_model, dtype, clone=clone)
        return cls(language, {kind: adapter.sampling_modules(kind, language.dtype, clone) for kind in adapter.kinds})

    def sample(
        self,
        adapter: LanguageModelAdapter,
        prompts: tuple[PromptEmbeddings, Tensor, Tensor | None],
        kind: str,
        uniforms: Float[Tensor, "B N"],
        sampling: Sampling,
    ) -> Decoded:
        """Up to N actions after each of B prompts, as `left_padded` gives them."""
        head, embed = self.modules[kind]
        return decode(
            self.language,
            *prompts,
            head=head,
            embed=embed,
            uniforms=uniforms,
            sampling=sampling,
            stop_ids=adapter.stop_ids if kind == "text" else (),
            separator=adapter.separator(kind),
        )


def sample_with_cache(
    adapter: LanguageModelAdapter,
    encodings: Sequence[Encoding],
    kind: str,
    uniforms: Float[Tensor, "B N"],
    sampling: Sampling,
) -> Decoded:
    """Up to N actions after each of B prompts, of which equal ones (the same object) are encoded once; no guidance."""
    unique, rows = distinct(encodings)
    owner = index_on(adapter.device, rows)
    language = adapter.language_model
    with without_checkpointing(language):
        prefix = prefill(language, adapter.embed_prompts(unique))
        return generate_from_state(
            prefix.last[owner],
            prefix.continued(owner),
            head=adapter.head(kind),
            embed=adapter.embed_tokens,
            uniforms=uniforms,
            sampling=sampling,
            stop_ids=adapter.stop_ids,
        )


def left_padded(
    adapter: LanguageModelAdapter, encodings: Sequence[Encoding]
) -> tuple[PromptEmbeddings, Int[Tensor, "B"], Int[Tensor, "B"] | None]:
    """Distinct prompts, then distinct unconditional ones, left-padded; and each sequence's rows in them."""
    unique, places = distinct(encodings)
    embedded = [prompt.vectors for prompt in adapter.embed_prompts(unique)]
    device = adapter.device
    null_rows = None
    if encodings[0].null_ids is not None:
        uncond: dict[tuple[int, ...], int] = {}
        of_prompt: list[int] = []
        for encoding in unique:
            assert encoding.null_ids is not None
            of_prompt.append(uncond.setdefault(tuple(encoding.null_ids.tolist()), len(uncond)))
        embedded += [adapter.embed_ids(torch.tensor(ids)).vectors for ids in uncond]
        null_rows = index_on(device, [len(unique) + of_prompt[place] for place in places])
    longest = max(len(e) for e in embedded)
    table = embedded[0].new_zeros(len(embedded), longest, embedded[0].shape[-1])
    mask = torch.zeros(len(embedded), longest, dtype=torch.bool, device=device)
    for row, vectors in enumerate(embedded):
        table[row, longest - len(vectors) :] = vectors
        mask[row, longest - len(vectors) :] = True
    return PromptEmbeddings(table, mask), index_on(device, places), null_rows


def distinct(items: Sequence[Any]) -> tuple[list[Any], list[int]]:
    """The distinct objects of a list in order, and each item's place among them."""
    unique = {id(item): item for item in items}
    place = {key: number for number, key in enumerate(unique)}
    return list(unique.values()), [place[id(item)] for item in items]
