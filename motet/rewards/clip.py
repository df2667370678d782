"""CLIP score: how well a drawing fits its prompt in CLIP's space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from motet.protocols import Policy
from motet.rewards.base import Judge, reward
from motet.rewards.choices import text_of_question
from motet.rewards.models import device_of, load_model, load_processor
from motet.rewards.options import filled, number, whole
from motet.rewards.pixels import drawn, in_batches, spread


@reward("clip_score")
@dataclass(eq=False, kw_only=True)
class ClipScore(Judge):
    """`scale` x cosine of CLIP's embeddings of the drawing and of the prompt (default scale 1).

    Radford et al. 2021 (arXiv 2103.00020). CoRL's pilot study rewards with it, and its code multiplies by 2; CLIPScore
    (Hessel et al. 2021, arXiv 2104.08718) by 2.5, with negative values at 0. `path` is a folder or hub id of a
    transformers CLIPModel. Prompts longer than its text encoder (77 tokens) are cut. A row without a prompt gets None.
    """

    path: Any = None
    scale: Any = 1.0
    batch_size: Any = 32
    _model: Any = field(init=False, default=None)
    _tokenizer: Any = field(init=False, default=None)
    _image_processor: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        filled("clip_score", "path", self.path, "path of a CLIP model")
        number("clip_score", "scale", self.scale)
        whole("clip_score", "batch_size", self.batch_size)

    def prepare(self, policy: Policy) -> None:
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

        key = "rewards.options.path of 'clip_score'"
        self._model = load_model(CLIPModel, self.path, device_of(policy), key=key)
        self._tokenizer = load_processor(AutoTokenizer, self.path, key=key)
        self._image_processor = load_processor(AutoImageProcessor, self.path, key=key)

    @torch.no_grad()
    def __call__(self, completions: list[Any], prompt: list[Any]) -> list[float | None]:
        """One score per completion, from its last picture."""
        places, pictures = drawn(completions, [asked is not None for asked in prompt], "clip_score")
        if not places:
            return spread(len(completions), [], [])
        prompts = [text_of_question(prompt[place]) for place in places]
        distinct = list(dict.fromkeys(prompts))
        texts = torch.stack(in_batches(distinct, self.batch_size, self._embed_texts))
        images = torch.stack(in_batches(pictures, self.batch_size, self._embed_pictures))
        wanted = texts[[distinct.index(text) for text in prompts]]
        return spread(len(completions), places, (self.scale * (images * wanted).sum(dim=-1)).tolist())

    def _embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        longest = self._model.config.text_config.max_position_embeddings
        found = self._tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        found = found.to(self._model.device)
        states = self._model.text_model(input_ids=found["input_ids"], attention_mask=found["attention_mask"])
        return F.normalize(self._model.text_projection(states.pooler_output), dim=-1)

    def _embed_pictures(self, pictures: Sequence[Image.Image]) -> Float[Tensor, "B D"]:
        pixels = self._image_processor(images=list(pictures), return_tensors="pt")["pixel_values"]
        states = self._model.vision_model(pixel_values=pixels.to(self._model.device))
        return F.normalize(self._model.visual_projection(states.pooler_output), dim=-1)
