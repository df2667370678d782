"""A Janus ready to decode: its language model as a snapshot, its heads in the same dtype, contexts as prefixes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from motet.core.trajectory import Encoding
from motet.policies.generation.decode_loop import Embed, Head, PromptEmbeddings
from motet.policies.generation.fused_weights import FusedLlama
from motet.policies.janus.embeddings import Embedder


@dataclass(frozen=True, eq=False)
class Sampler:
    """What `decode` needs of a model, for text and for image tokens. Good until the model's next update."""

    language: FusedLlama
    text_head: Head
    text_embed: Embed
    image_head: Head
    image_embed: Embed

    @classmethod
    def take(cls, model: Any, dtype: torch.dtype) -> Sampler:
        """In a compute type, whatever that of the weights is."""
        inner = model.model
        language = FusedLlama.take(inner.language_model, dtype)
        codes = inner.generation_embeddings.weight.to(language.dtype)
        with torch.no_grad():  # what a picture token looks like to the language model, once per snapshot
            table = _in_dtype(inner.generation_aligner, language.dtype)(codes)
        return cls(
            language,
            text_head=_in_dtype(model.lm_head, language.dtype),
            text_embed=inner.language_model.embed_tokens,
            image_head=_in_dtype(inner.generation_head, language.dtype),
            image_embed=lambda ids: nn.functional.embedding(ids, table),
        )


def prefixes_of(embedder: Embedder, encodings: Sequence[Encoding]) -> tuple[PromptEmbeddings, Tensor, Tensor | None]:
    """Distinct contexts, then distinct unconditional branches, left-padded; and each sequence's rows in them."""
    unique = list({id(e): e for e in encodings}.values())
    place = {id(e): n for n, e in enumerate(unique)}
    embedded = embedder.contexts(unique)
    device = embedder.device
    null_rows = None
    if encodings[0].null_ids is not None:
        uncond_hidden: dict[tuple[int, ...], int] = {}
        null_place = {}
        for encoding in unique:
            assert encoding.null_ids is not None
            null_place[id(encoding)] = uncond_hidden.setdefault(tuple(encoding.null_ids.tolist()), len(uncond_hidden))
        embedded += [embedder.text(torch.tensor(ids, device=device)) for ids in uncond_hidden]
        null_rows = torch.tensor([len(unique) + null_place[id(e)] for e in encodings], device=device)
    longest = max(len(e) for e in embedded)
    table = embedded[0].new_zeros(len(embedded), longest, embedded[0].shape[-1])
    mask = torch.zeros(len(embedded), longest, dtype=torch.bool, device=device)
    for row, vectors in enumerate(embedded):
        table[row, longest - len(vectors) :] = vectors
        mask[row, longest - len(vectors) :] = True
    rows = torch.tensor([place[id(e)] for e in encodings], device=device)
    return PromptEmbeddings(table, mask), rows, null_rows


def _in_dtype(module: nn.Module, dtype: torch.dtype) -> Any:
    """The module itself if its weights are of this type, else a copy that is."""
    if all(parameter.dtype == dtype for parameter in module.parameters()):
        return module
    return copy.deepcopy(module).to(dtype).requires_grad_(False)
