"""Conversation -> prompt of Emu3: text and image tokens in one vocabulary.

An image is `<|image start|>HEIGHT*WIDTH<|image token|>`, rows of visual tokens with an end-of-line token after each,
end of frame, `<|image end|>`. Prompts for text follow the checkpoint's chat template; prompts for images are captions,
as for transformers' processor: the beginning of text, the caption, and the beginning of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from motet.policies.generation.chat_template import ChatTemplateEncoder

GENERATED_AREA = 720 * 720
"""Pixels of a generated image: the default of transformers' `Emu3Processor`."""


class Emu3Encoder(ChatTemplateEncoder):
    """Encodes conversations for one checkpoint. Images become tokens here, once: the model is their tokenizer too.

    `grid` is the height and width in tokens of images that are generated: squares of `GENERATED_AREA`, within the image
    processor's limits.
    """

    bos_id: int

    def __init__(self, model: Any, processor: Any) -> None:
        tokenizer, limits = processor.tokenizer, processor.image_processor
        template = processor.chat_template or tokenizer.chat_template
        positions = model.config.text_config.max_position_embeddings
        super().__init__(processor, tokenizer, positions, family="Emu3", template=template)
        self.model, self.image_processor, self.factor = model, limits, processor.downsample_ratio
        area = min(max(GENERATED_AREA, limits.min_pixels), limits.max_pixels)
        self.grid: tuple[int, int] = processor.calculate_generate_size("1:1", area, self.factor)
        names = ("bos", "eos", "image", "boi", "eoi", "eof", "image_wrapper")
        tokens = {name: getattr(tokenizer, f"{name}_token") for name in names}
        self.ids = {name: self._id(f"{name}_token", token) for name, token in tokens.items()}
        self.bos_id, self.eos_id, self.image_id = self.ids["bos"], self.ids["eos"], self.ids["image"]
        self.image_token = tokens["image"]
        self._set_control_tokens(set(tokens.values()))

    def readable(self, ids: Sequence[int]) -> str:
        """As text, the visual tokens of an image counted."""
        visual = {*self.model.vocabulary_mapping.image_tokens, self.model.vocabulary_mapping.eol_token_id}
        return super().readable([self.image_id if token in visual else token for token in ids])

    def _render(self, chat: list[dict[str, Any]], kind: str) -> str:
        if kind == "text":
            return self.rendered(chat)
        parts = [part for message in chat for part in message["content"]]
        return " ".join(part["text"] if part["type"] == "text" else self.image_token for part in parts)

    def _image_prefix(self) -> list[int]:
        return self._begin_image(*self.grid)

    def _null_ids(self, ids: Tensor, kind: str) -> Tensor:
        return torch.tensor([self.bos_id, *(self._image_prefix() if kind == "image" else [])])

    def _begin_image(self, height: int, width: int) -> list[int]:
        return [self.ids["boi"], *self.text_ids(f"{height}*{width}"), self.ids["image_wrapper"]]

    @torch.no_grad()
    def _encode_images(self, images: list[Image.Image]) -> tuple[None, None, list[list[int]]]:
        """Each image alone: transformers pads a batch to one size before it is tokenized, which changes the tokens."""
        blocks: list[list[int]] = []
        for image in images:
            found = self.image_processor(images=[image.convert("RGB")], return_tensors="pt")
            (size,) = found["image_sizes"].tolist()
            tokens = self.model.model.get_image_tokens(found["pixel_values"].to(self.model.device), [size])
            start = self._begin_image(*(side // self.factor for side in size))
            blocks.append([*start, *tokens.tolist(), self.ids["eof"], self.ids["eoi"]])
        return None, None, blocks
