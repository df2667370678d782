"""What a family of language models adds to the shared decoder and replay: its adapter."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from motet.core.trajectory import Act, Encoding, ImageTokens
from motet.numerics.transfers import to_device
from motet.policies.generation.chat_template import ChatTemplateEncoder
from motet.policies.generation.decode_loop import Embed, Head, Separator
from motet.policies.generation.fused_weights import in_dtype


@dataclass(frozen=True, eq=False)
class EmbeddedPrompt:
    """A prompt as input of the language model. What is generated after it starts at `next_position`.

    `positions` are M-RoPE's (time, height, width); None: 0 .. T - 1. `visual` are the places of image tokens, and
    `deep` what Qwen3-VL adds there to the hidden states of its first layers (DeepStack, arXiv 2406.04334).
    """

    vectors: Float[Tensor, "T D"]
    next_position: int
    positions: Int[Tensor, "3 T"] | None = None
    visual: Int[Tensor, "I"] | None = None
    deep: tuple[Float[Tensor, "I D"], ...] = ()


class LanguageModelAdapter:
    """One family's embeddings, positions, heads and image tokenizer; its `encoder` holds the chat template.

    Prompt tokens and sampled tokens are embedded by separate code paths: an image placeholder that the language head
    sampled is embedded as a text token, and no image is looked for. `fused`: the language model is a Llama, which
    `motet.policies.generation.fused_weights` samples from faster than transformers does.
    """

    kinds: frozenset[str] = frozenset({"text"})
    fused = False
    num_image_tokens = 0
    """Actions of an image act."""
    row_width: int | None = None
    """After so many image tokens a separator follows that is not sampled; None: there is no separator."""
    encoder: ChatTemplateEncoder

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor

    @property
    def language_model(self) -> Any:
        """The decoder: `inputs_embeds` in, normed hidden states out."""
        return self.model.model.language_model

    @property
    def parts(self) -> dict[str, nn.Module]:
        """What can train, by the names that `policy.train` uses."""
        return {**dict(self.model.model.named_children()), "lm_head": self.model.lm_head}

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.lm_head.weight.device

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """Tokens that end a text: the end of the turn, and whatever else the model's own `generate` stops at."""
        declared = self.model.generation_config.eos_token_id
        listed = declared if isinstance(declared, list | tuple) else [] if declared is None else [declared]
        return tuple(dict.fromkeys([self.encoder.eos_id, *map(int, listed)]))

    # ---- embeddings and heads ---------------------------------------------------------------------------------------

    def embed_prompts(self, encodings: Sequence[Encoding]) -> list[EmbeddedPrompt]:
        """Each prompt embedded, with gradient; all images go through the vision tower in one pass."""
        return [self.embed_ids(encoding.ids) for encoding in encodings]

    def embed_ids(self, ids: Int[Tensor, "T"]) -> EmbeddedPrompt:
        """A prompt of plain tokens, as the unconditional branch is one."""
        return EmbeddedPrompt(self.embed_tokens(to_device(ids, self.device)), len(ids))

    def embed_tokens(self, ids: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        """Vectors of text tokens."""
        return self.language_model.embed_tokens(ids)

    def embed_image_tokens(self, ids: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        """Vectors of the actions of image acts."""
        raise NotImplementedError

    def embed_actions(self, act: Act, ids: Int[Tensor, "N"]) -> tuple[Float[Tensor, "M D"], Sequence[int]]:
        """Vectors of an act's actions but the last, which predicts nothing, separators included; `ids` on the device.

        Also the places in them whose hidden states predict the actions but the first.
        """
        ids = ids[:-1]
        if not isinstance(act, ImageTokens):
            return self.embed_tokens(ids), range(len(ids))
        vectors, width = self.embed_image_tokens(ids), self.row_width
        if width is None:
            return vectors, range(len(ids))
        separator = self.separator_vector().to(vectors.dtype)
        rows = [torch.cat([row, separator]) if len(row) == width else row for row in vectors.split(width)]
        return torch.cat(rows) if rows else vectors, [n - 1 + n // width for n in range(1, len(ids) + 1)]

    def separator_vector(self) -> Float[Tensor, "1 D"]:
        """The embedding of the separator after a row of image tokens."""
        raise NotImplementedError

    def separator(self, kind: str) -> Separator | None:
        """What the decode loop inserts after rows of an act of this kind."""
        return Separator(self.row_width, self.separator_vector()) if kind == "image" and self.row_width else None

    def num_positions(self, kind: str, num_actions: int) -> int:
        """Positions of the language model that so many actions take, separators between them included."""
        separators = (num_actions - 1) // self.row_width if kind == "image" and self.row_width and num_actions else 0
        return num_actions + separators

    def head(self, kind: str) -> Head:
        """Maps hidden states to the logits of the actions of a kind."""
        return self.model.lm_head

    def sampling_modules(self, kind: str, dtype: torch.dtype, clone: bool = False) -> tuple[Head, Embed]:
        """Head and embedding of a kind for the fused sampler, which computes in `dtype`.

        With `clone` they share no weight with the model.
        """
        return in_dtype(self.model.lm_head, dtype, clone), self._text_embedding(clone)

    def _text_embedding(self, clone: bool) -> Embed:
        return copy.deepcopy(self.language_model.embed_tokens) if clone else self.embed_tokens

    # ---- image tokenizer --------------------------------------------------------------------------------------------

    def decode_images(self, ids: Int[Tensor, "B N"]) -> list[Image.Image]:
        """RGB images of image tokens."""
        raise NotImplementedError

    def encode_images(self, images: Sequence[Image.Image]) -> Int[Tensor, "B N"]:
        """Image tokens of images, cropped and resized to the model's own size."""
        raise NotImplementedError

    def reconstruct(self, images: Sequence[Image.Image]) -> list[tuple[Image.Image, Image.Image]]:
        """See `motet.core.protocols.ReconstructingPolicy`."""
        raise NotImplementedError
