"""Contexts as the language model of a Qwen-VL reads them, with gradient. Context ids and action ids share no road.

So an image-pad id that the language head sampled is embedded as a word, and no picture is looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from motet.core.trajectory import Act, TextTokens
from motet.policies.qwen_vl.prompt_encoding import VlmEncoding


@dataclass(frozen=True, eq=False)
class Context:
    """One context, embedded. `positions` are the M-RoPE positions in time, height and width; text goes on at
    `next_position`, one past the largest on any axis.

    `visual` is True where pictures stand, and `deep` are what Qwen3-VL adds there to the hidden states of its first
    layers (DeepStack, arXiv 2406.04334); empty for Qwen2.5-VL and for contexts without pictures.
    """

    vectors: Float[Tensor, "T D"]
    positions: Int[Tensor, "3 T"]
    next_position: int
    visual: Bool[Tensor, "T"]
    deep: tuple[Float[Tensor, "I D"], ...] = ()


class VlmEmbedder:
    """What the language model of a Qwen-VL reads, as vectors of D features."""

    def __init__(self, model: Any, image_id: int) -> None:
        self.model, self.image_id = model, image_id

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.lm_head.weight.device

    def contexts(self, encodings: Sequence[VlmEncoding]) -> list[Context]:
        """Each encoding embedded; all pictures go through the vision tower in one pass."""
        features = self._features(encodings)
        embedded: list[Context] = []
        for number, encoding in enumerate(encodings):
            ids = encoding.ids.to(self.device)
            vectors, visual, deep = self.words(ids), ids == self.image_id, ()
            if number in features:
                merged, *deeper = (part.to(vectors.dtype) for part in features[number])
                vectors, deep = vectors.masked_scatter(visual.unsqueeze(-1), merged), tuple(deeper)
            positions = self._positions(encoding)
            following = int(positions.max()) + 1
            embedded.append(Context(vectors, positions.to(self.device), following, visual, deep))
        return embedded

    def words(self, ids: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        """Vectors of text ids, whatever they are."""
        return self.model.model.language_model.embed_tokens(ids)

    def actions(self, act: Act) -> Float[Tensor, "N1 D"]:
        """An act's actions but the last, which nobody reads."""
        assert isinstance(act, TextTokens)
        return self.words(act.ids[:-1].to(self.device))

    def _positions(self, encoding: VlmEncoding) -> Int[Tensor, "3 T"]:
        """The model's own `get_rope_index`, computed on the CPU: it walks through Python numbers."""
        ids = encoding.ids.unsqueeze(0)
        visual = ids == self.image_id
        found, _ = self.model.model.get_rope_index(
            input_ids=ids, mm_token_type_ids=visual.int(), image_grid_thw=encoding.grids
        )
        positions = found[:, 0]
        if encoding.grids is not None:
            # A still picture is one moment, that of its first row. Older versions of transformers multiply Qwen2.5-VL's
            # as if it were a video's (transformers issue 45325); elsewhere this changes nothing.
            lengths = encoding.grids.prod(dim=1) // self.model.model.visual.spatial_merge_size**2
            for places in visual[0].nonzero().flatten().split(lengths.tolist()):
                positions[0, places] = positions[1, places[0]]
        return positions

    def _features(self, encodings: Sequence[VlmEncoding]) -> dict[int, list[Tensor]]:
        """Encoding's number -> its pictures' merged features `[I, D]`, then those for the first layers (DeepStack)."""
        holders = [(number, e.pixels, e.grids) for number, e in enumerate(encodings) if e.pixels is not None]
        if not holders:
            return {}
        inner = self.model.model
        pixels = torch.cat([pixels for _, pixels, _ in holders]).to(self.device)
        grids = torch.cat([grids for _, _, grids in holders if grids is not None]).to(self.device)
        seen = inner.get_image_features(pixels, grids)
        parts = [seen.pooler_output, *(getattr(seen, "deepstack_features", None) or ())]
        joined = [torch.cat(tuple(part)) if isinstance(part, tuple | list) else part for part in parts]
        merged = inner.visual.spatial_merge_size**2
        split = zip(*(part.split([len(pixels) // merged for _, pixels, _ in holders]) for part in joined), strict=True)
        return {number: list(own) for (number, _, _), own in zip(holders, split, strict=True)}
