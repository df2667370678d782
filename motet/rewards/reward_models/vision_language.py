"""A Qwen2-VL or Qwen2.5-VL that reads out next-token logits, or generates text, about an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from motet.rewards.models import load_model
from motet.rewards.reward_models.base import Placement
from motet.rewards.reward_models.qwen_vl import QwenInputs
from motet.weights.hf_output import suppress_hf_output


@dataclass(frozen=True, eq=False)
class VisionLanguageModel:
    """The model with its tokenizer and image processor."""

    inputs: QwenInputs
    model: Any

    @classmethod
    def open(cls, path: str, placement: Placement, *, key: str) -> VisionLanguageModel:
        """Load from a folder or hub id. Raises ConfigError naming `key`."""
        from transformers import AutoModelForImageTextToText

        inputs = QwenInputs.open(path, key=key)
        model = load_model(AutoModelForImageTextToText, path, placement.device, key=key, dtype=placement.dtype)
        return cls(inputs, model)

    @torch.no_grad()
    def next_logits(self, images: Sequence[Image.Image], question: str, opening: str) -> Float[Tensor, "B V"]:
        """Logits of the token after `opening`, with which the answer to the question about each image begins."""
        given = self._encode(images, [question] * len(images), opening)
        return self.model(**given, logits_to_keep=1).logits[:, -1].float()

    @torch.no_grad()
    def generate(self, images: Sequence[Image.Image], questions: Sequence[str], max_tokens: int) -> list[str]:
        """The greedy answer to one question about each image."""
        given = self._encode(images, questions, "")
        tokenizer = self.inputs.tokenizer
        with suppress_hf_output():
            ids = self.model.generate(
                **given, do_sample=False, max_new_tokens=max_tokens, pad_token_id=tokenizer.pad_token_id
            )
        return tokenizer.batch_decode(ids[:, given["input_ids"].shape[1] :], skip_special_tokens=True)

    def _encode(self, images: Sequence[Image.Image], questions: Sequence[str], opening: str) -> dict[str, Tensor]:
        shown = [[image] for image in images]
        given = self.inputs.encode(shown, questions, self.model.device, answer=opening, pad_left=True)
        return given | {"pixel_values": given["pixel_values"].to(self.model.dtype)}
