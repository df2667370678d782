"""Qwen-VL as a language model: M-RoPE positions, and images as merged patches of the vision tower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from motet.core.errors import CheckpointError
from motet.core.trajectory import Encoding
from motet.numerics.transfers import to_device
from motet.policies.generation.adapter import EmbeddedPrompt, LanguageModelAdapter
from motet.policies.qwen_vl.prompt_encoding import VlmEncoder
from motet.policies.qwen_vl.vision_inputs import precomputed_vision_inputs


class QwenVLAdapter(LanguageModelAdapter):
    """A Qwen2.5-VL or Qwen3-VL. It generates text."""

    encoder: VlmEncoder

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        self.encoder = VlmEncoder(processor, model.config)
        self.image_id = self.encoder.image_id
        _check_full_attention(model)

    def embed_prompts(self, encodings: Sequence[Encoding]) -> list[EmbeddedPrompt]:
        """Each prompt embedded; all images go through the vision tower in one pass."""
        features = self._features(encodings)
        prompts: list[EmbeddedPrompt] = []
        for number, encoding in enumerate(encodings):
            vectors, deep = self.embed_tokens(to_device(encoding.ids, self.device)), ()
            visual = to_device((encoding.ids == self.image_id).nonzero().flatten(), self.device)
            if number in features:
                merged, *deeper = (part.to(vectors.dtype) for part in features[number])
                vectors, deep = vectors.index_copy(0, visual, merged), tuple(deeper)
            positions = self._positions(encoding)
            following = int(positions.max()) + 1
            prompts.append(EmbeddedPrompt(vectors, following, to_device(positions, self.device), visual, deep))
        return prompts

    def _positions(self, encoding: Encoding) -> Int[Tensor, "3 T"]:
        """The model's own `get_rope_index`, computed on the CPU: it walks through Python numbers."""
        ids = encoding.ids.unsqueeze(0)
        visual = ids == self.image_id
        found, _ = self.model.model.get_rope_index(
            input_ids=ids, mm_token_type_ids=visual.int(), image_grid_thw=encoding.image_sizes
        )
        positions = found[:, 0]
        if encoding.image_sizes is not None:
            # A still image is one moment, that of its first row. Older versions of transformers multiply Qwen2.5-VL's
            # as if it were a video's (transformers issue 45325); elsewhere this changes nothing.
            lengths = encoding.image_sizes.prod(dim=1) // self.model.model.visual.spatial_merge_size**2
            for places in visual[0].nonzero().flatten().split(lengths.tolist()):
                positions[0, places] = positions[1, places[0]]
        return positions

    def _features(self, encodings: Sequence[Encoding]) -> dict[int, list[Tensor]]:
        """Encoding's number -> its images' merged features `[I, D]`, then those for the first layers (DeepStack)."""
        holders = [(number, e.pixels, e.image_sizes) for number, e in enumerate(encodings) if e.pixels is not None]
        if not holders:
            return {}
        inner = self.model.model
        pixels = to_device(torch.cat([pixels for _, pixels, _ in holders]), self.device)
        grids = torch.cat([grids for _, _, grids in holders if grids is not None])
        seen = inner.get_image_features(pixels, grids, **precomputed_vision_inputs(inner.visual, grids, self.device))
        parts = [seen.pooler_output, *(getattr(seen, "deepstack_features", None) or ())]
        joined = [torch.cat(tuple(part)) if isinstance(part, tuple | list) else part for part in parts]
        merged = inner.visual.spatial_merge_size**2
        split = zip(*(part.split([len(pixels) // merged for _, pixels, _ in holders]) for part in joined), strict=True)
        return {number: list(own) for (number, _, _), own in zip(holders, split, strict=True)}


def _check_full_attention(model: Any) -> None:
    """Prompts are padded on the right, so columns are not distances: a window would be measured wrongly."""
    if "sliding_attention" in (getattr(model.config.text_config, "layer_types", None) or ()):
        raise CheckpointError(
            "config.json says use_sliding_window=true, which motet cannot sample with.",
            fix="set text_config.use_sliding_window=false; published Qwen-VL checkpoints do.",
        )
