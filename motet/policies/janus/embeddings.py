"""Embeddings of contexts and of actions, with gradient. Context ids and action ids never share a road.

So an image-placeholder id that the language head sampled is embedded as a word, and no picture is looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from motet.core.trajectory import Act, Encoding, ImageTokens, TextTokens


class Embedder:
    """What the language model of a Janus reads, as vectors of D features."""

    def __init__(self, model: Any, image_id: int) -> None:
        self.model, self.image_id = model, image_id

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.lm_head.weight.device

    def contexts(self, encodings: Sequence[Encoding]) -> list[Tensor]:
        """`[T, D]` for each encoding."""
        features = self._features(encodings)
        embedded = []
        for number, encoding in enumerate(encodings):
            ids = encoding.ids.to(self.device)
            vectors = self.text(ids)
            if number in features:
                places = (ids == self.image_id).unsqueeze(-1)
                vectors = vectors.masked_scatter(places, features[number].to(vectors.dtype))
            embedded.append(vectors)
        return embedded

    def text(self, ids: Tensor) -> Tensor:
        """`[..., D]` for text actions, and for ids of the unconditional branch."""
        return self.model.model.language_model.embed_tokens(ids)

    def image(self, ids: Tensor) -> Tensor:
        """`[..., D]` for image actions."""
        return self.model.prepare_embeddings_for_image_generation(ids)

    def actions(self, act: Act) -> Tensor:
        """`[N - 1, D]`: an act's actions but the last, which nobody reads."""
        assert isinstance(act, TextTokens | ImageTokens)
        ids = act.ids[:-1].to(self.device)
        return self.image(ids) if isinstance(act, ImageTokens) else self.text(ids)

    def _features(self, encodings: Sequence[Encoding]) -> dict[int, Tensor]:
        """Aligned picture features `[I * T, D]` of the encodings that have pictures, all in one pass of the tower."""
        holders = [(number, e.pixels) for number, e in enumerate(encodings) if e.pixels is not None]
        if not holders:
            return {}
        inner = self.model.model
        pixels = torch.cat([p for _, p in holders]).to(self.device, inner.vision_model.dtype)
        aligned = inner.aligner(inner.vision_model(pixels).last_hidden_state)
        split = aligned.split([len(p) for _, p in holders])
        return {number: part.flatten(0, 1) for (number, _), part in zip(holders, split, strict=True)}
