"""Captioning models of the reward `cycle`; the policy and endpoints are in `motet.rewards.judge.vqa`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from motet.rewards.image.pixels import in_batches
from motet.rewards.models import load_model, load_processor

Captioner = Callable[[Sequence[Image.Image]], list[str | None]]


@dataclass(frozen=True, eq=False)
class BlipCaptioner:
    """A BLIP captioning model (Li et al. 2022, arXiv 2201.12086), greedy; `batch_size` images at a time."""

    model: Any
    tokenizer: Any
    image_processor: Any
    max_tokens: int
    batch_size: int

    @classmethod
    def open(cls, path: str, device: torch.device, *, key: str, max_tokens: int, batch_size: int) -> BlipCaptioner:
        """From a folder or hub id such as Salesforce/blip-image-captioning-base. Raises ConfigError."""
        from transformers import AutoImageProcessor, AutoTokenizer, BlipForConditionalGeneration

        model = load_model(BlipForConditionalGeneration, path, device, key=key)
        tokenizer = load_processor(AutoTokenizer, path, key=key)
        return cls(model, tokenizer, load_processor(AutoImageProcessor, path, key=key), max_tokens, batch_size)

    @torch.no_grad()
    def __call__(self, images: Sequence[Image.Image]) -> list[str | None]:
        return in_batches(images, self.batch_size, self._describe)

    def _describe(self, images: Sequence[Image.Image]) -> list[str]:
        pixels = self.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        ids = self.model.generate(
            pixel_values=pixels.to(self.model.device), max_new_tokens=self.max_tokens, do_sample=False, num_beams=1
        )
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]
