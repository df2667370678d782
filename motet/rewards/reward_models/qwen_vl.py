"""Qwen2-VL and Qwen2.5-VL as reward models: conversations with images become the inputs of transformers' classes.

The tokenizer and the image processor are used directly: transformers' processor of these models needs torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from motet.core.errors import ConfigError, RewardError
from motet.rewards.models import load_processor

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl")


@dataclass(frozen=True, eq=False)
class QwenInputs:
    """The tokenizer and the image processor of a Qwen2-VL or Qwen2.5-VL; `config` is the model's."""

    config: Any
    tokenizer: Any
    image_processor: Any

    @classmethod
    def open(cls, path: str, *, key: str) -> QwenInputs:
        """Load from a folder or hub id. Raises ConfigError naming `key`, also for a model of another kind."""
        from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

        config = load_processor(AutoConfig, path, key=key)
        if config.model_type not in MODEL_TYPES:
            raise ConfigError(
                f"{key}={path!r} is a {config.model_type} model, but must be one of {', '.join(MODEL_TYPES)}.",
                fix="give a Qwen2-VL or Qwen2.5-VL.",
            )
        tokenizer = load_processor(AutoTokenizer, path, key=key)
        if tokenizer.chat_template is None:
            raise ConfigError(f"{key}={path!r} has a tokenizer without a chat template.", fix="give a complete model.")
        return cls(config, tokenizer, load_processor(AutoImageProcessor, path, key=key))

    def encode(
        self,
        images: Sequence[Sequence[Image.Image]],
        texts: Sequence[str],
        device: torch.device,
        *,
        area: int | None = None,
        answer: str = "",
        pad_left: bool = False,
    ) -> dict[str, Tensor]:
        """Inputs of one user turn each: its images, then its text; `answer` is how the assistant's turn begins.

        `area` is the number of pixels that every image is resized to, up or down, keeping its aspect ratio as far as
        patches allow (None: as the image processor does).
        """
        every = [image.convert("RGB") for turn in images for image in turn]
        side = self.image_processor.patch_size * self.image_processor.merge_size
        if area is not None:
            every = [image.resize(fitting_size(image.size, side, area), Image.Resampling.BICUBIC) for image in every]
        pixels = self.image_processor(images=every, do_resize=area is None, return_tensors="pt")
        tokens = iter((pixels["image_grid_thw"].prod(dim=1) // self.image_processor.merge_size**2).tolist())
        rows = [
            self._ids(self._chat(len(turn), text) + answer, [next(tokens) for _ in turn])
            for turn, text in zip(images, texts, strict=True)
        ]
        side_name = "left" if pad_left else "right"
        padding = self.tokenizer.pad_token_id or 0
        ids = pad_sequence(rows, batch_first=True, padding_value=padding, padding_side=side_name)
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side=side_name)
        return {
            "input_ids": ids.to(device),
            "attention_mask": mask.to(device),
            "mm_token_type_ids": (ids == self.config.image_token_id).int().to(device),
            "pixel_values": pixels["pixel_values"].to(device),
            "image_grid_thw": pixels["image_grid_thw"].to(device),
        }

    def _chat(self, images: int, text: str) -> str:
        content = [{"type": "image"}] * images + [{"type": "text", "text": text}]
        turn = [{"role": "user", "content": content}]
        return self.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)

    def _ids(self, chat: str, tokens: Sequence[int]) -> Tensor:
        """Token ids of a conversation, each image's placeholder repeated as often as the image has tokens."""
        place = self.config.image_token_id
        given = self.tokenizer(chat, add_special_tokens=False)["input_ids"]
        if given.count(place) != len(tokens):
            raise RewardError(
                f"A conversation with {len(tokens)} images has {given.count(place)} placeholders of images.",
                fix="remove the model's special tokens from the prompt; check the tokenizer's chat template.",
            )
        repeats = iter(tokens)
        return torch.tensor([one for token in given for one in [token] * (next(repeats) if token == place else 1)])


def fitting_size(size: tuple[int, int], side: int, area: int) -> tuple[int, int]:
    """Width and height as multiples of `side`, of at most `area` pixels in all, or at least if the image is smaller.

    The rule of Qwen2-VL's preprocessing with equal bounds: an image that rounds to more is scaled down, rounding down;
    one that rounds to less is scaled up, rounding up.
    """
    nearest = [max(side, round(length / side) * side) for length in size]
    scale = math.sqrt(area / (size[0] * size[1]))
    if math.prod(nearest) > area:
        nearest = [max(side, math.floor(length * scale / side) * side) for length in size]
    elif math.prod(nearest) < area:
        nearest = [math.ceil(length * scale / side) * side for length in size]
    return nearest[0], nearest[1]
