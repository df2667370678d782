"""Janus as a language model: a Llama with a vision tower, and a head and embeddings of its own for image tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from motet.core.errors import CheckpointError
from motet.core.trajectory import Encoding
from motet.numerics.transfers import to_device
from motet.policies.generation.adapter import EmbeddedPrompt, LanguageModelAdapter
from motet.policies.generation.decode_loop import Embed, Head
from motet.policies.generation.fused_weights import in_dtype
from motet.policies.janus import images as janus_images
from motet.policies.janus.checkpoint import fill_generation_config
from motet.policies.janus.prompt_encoding import ContextEncoder


class JanusAdapter(LanguageModelAdapter):
    """`JanusForConditionalGeneration`. Images that are shown go through the vision tower, not the image tokenizer."""

    kinds: frozenset[str] = frozenset({"text", "image"})
    fused = True
    encoder: ContextEncoder

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        self.encoder = ContextEncoder(processor, model.config.text_config.max_position_embeddings)
        self.num_image_tokens = _num_image_tokens(model, self.encoder)
        fill_generation_config(model, self.encoder)

    def embed_prompts(self, encodings: Sequence[Encoding]) -> list[EmbeddedPrompt]:
        """Each prompt embedded; all images go through the vision tower in one pass."""
        features = self._features(encodings)
        prompts: list[EmbeddedPrompt] = []
        for number, encoding in enumerate(encodings):
            ids = to_device(encoding.ids, self.device)
            vectors = self.embed_tokens(ids)
            if number in features:
                places = to_device((encoding.ids == self.encoder.image_id).nonzero().flatten(), self.device)
                vectors = vectors.index_copy(0, places, features[number].to(vectors.dtype))
            prompts.append(EmbeddedPrompt(vectors, len(ids)))
        return prompts

    def embed_image_tokens(self, ids: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        """Vectors of image tokens, through the generation aligner."""
        return self.model.prepare_embeddings_for_image_generation(ids)

    def head(self, kind: str) -> Head:
        """The language head, or the generation head over the codebook."""
        return self.model.lm_head if kind == "text" else self.model.model.generation_head

    def sampling_modules(self, kind: str, dtype: torch.dtype, clone: bool = False) -> tuple[Head, Embed]:
        """See `LanguageModelAdapter.sampling_modules`; the vectors of all image tokens are computed once."""
        if kind == "text":
            return super().sampling_modules(kind, dtype, clone)
        inner = self.model.model
        codes = inner.generation_embeddings.weight.to(dtype)
        with torch.no_grad():
            table = in_dtype(inner.generation_aligner, dtype)(codes)
        return in_dtype(inner.generation_head, dtype, clone), lambda ids: nn.functional.embedding(ids, table)

    def decode_images(self, ids: Int[Tensor, "B N"]) -> list[Image.Image]:
        """RGB images of codebook indices."""
        return janus_images.decode_images(self.model, ids)

    def encode_images(self, images: Sequence[Image.Image]) -> Int[Tensor, "B N"]:
        """See `motet.policies.janus.images.encode_images`."""
        return janus_images.encode_images(self.model, self.processor, images)

    def reconstruct(self, images: Sequence[Image.Image]) -> list[tuple[Image.Image, Image.Image]]:
        """What the image tokenizer is given of each image, and what it makes of it."""
        return janus_images.reconstructed(self.model, self.processor, images)

    def _features(self, encodings: Sequence[Encoding]) -> dict[int, Tensor]:
        """Aligned image features `[I * T, D]` of the encodings that have images, all in one pass of the tower."""
        holders = [(number, e.pixels) for number, e in enumerate(encodings) if e.pixels is not None]
        if not holders:
            return {}
        inner = self.model.model
        pixels = to_device(torch.cat([p for _, p in holders]), self.device, inner.vision_model.dtype)
        aligned = inner.aligner(inner.vision_model(pixels).last_hidden_state)
        split = aligned.split([len(p) for _, p in holders])
        return {number: part.flatten(0, 1) for (number, _), part in zip(holders, split, strict=True)}


def _num_image_tokens(model: Any, encoder: ContextEncoder) -> int:
    """How many tokens an image has. Raises CheckpointError where model, tokenizer and processor differ."""
    side, tokens = model.config.vq_config.num_patches, model.config.vision_config.num_image_tokens
    if side * side != tokens or encoder.processor.num_image_tokens != tokens:
        raise CheckpointError(
            f"Images of this model have {side} x {side} tokens, but config.json says {tokens} and the processor "
            f"{encoder.processor.num_image_tokens}.",
            fix=f"set num_image_tokens to {side * side} in config.json and in processor_config.json.",
        )
    if model.config.image_token_id != encoder.image_id:
        raise CheckpointError(
            f"The tokenizer's {encoder.image_token} is token {encoder.image_id}, but config.json says "
            f"image_token_id={model.config.image_token_id}.",
            fix="use the tokenizer files that belong to this Janus checkpoint: 1B and 7B differ.",
        )
    return tokens
