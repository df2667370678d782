"""The Emu3 policy: `Emu3ForConditionalGeneration` itself, generating and replaying text and images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image, ImageOps
from torch import Tensor, nn
from transformers import Emu3ForConditionalGeneration, Emu3Processor, PreTrainedTokenizerFast
from transformers.models.emu3.image_processing_emu3 import Emu3ImageProcessor

from motet.core.errors import CheckpointError
from motet.numerics.transfers import index_on
from motet.policies.checkpoints import open_checkpoint
from motet.policies.emu3.prompt_encoding import Emu3Encoder
from motet.policies.generation.adapter import LanguageModelAdapter
from motet.policies.generation.decode_loop import Embed, Head
from motet.policies.generation.policy import ImageTokenPolicy


class Emu3Adapter(LanguageModelAdapter):
    """Image acts choose among the visual tokens only; the end-of-line token after each row is a separator."""

    kinds: frozenset[str] = frozenset({"text", "image"})
    fused = True
    encoder: Emu3Encoder

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        mapping, codes = model.vocabulary_mapping, model.config.vq_config.codebook_size
        ids = mapping.img2bpe_mapping_tensor.tolist() if mapping.image_tokens else []
        self.first_visual, self.num_codes = ids[0] if ids else 0, codes
        if ids != list(range(self.first_visual, self.first_visual + codes)):
            raise CheckpointError(
                f"config.json's vocabulary_map names {len(ids)} visual tokens; there must be {codes} of adjacent ids.",
                fix="restore the config.json that belongs to this Emu3 checkpoint.",
            )
        model.model.vqmodel.requires_grad_(False)  # no gradient passes through it
        self.encoder = Emu3Encoder(model, processor)
        height, self.row_width = self.encoder.grid
        self.num_image_tokens = height * self.row_width

    @property
    def language_model(self) -> Any:
        """The decoder over text and image tokens."""
        return self.model.model.text_model

    @property
    def parts(self) -> dict[str, nn.Module]:
        """`language_model` and `lm_head`."""
        return {"language_model": self.language_model, "lm_head": self.model.lm_head}

    def embed_image_tokens(self, ids: Int[Tensor, "*B"]) -> Float[Tensor, "*B D"]:
        """Vectors of codebook indices."""
        return self.embed_tokens(ids + self.first_visual)

    def separator_vector(self) -> Float[Tensor, "1 D"]:
        """The embedding of the end-of-line token."""
        return self.embed_tokens(index_on(self.device, [self.model.vocabulary_mapping.eol_token_id]))

    def head(self, kind: str) -> Head:
        """The language head, for images its rows of visual tokens."""
        return self.model.lm_head if kind == "text" else self._visual_head(self.model.lm_head)

    def sampling_modules(self, kind: str, dtype: torch.dtype, clone: bool = False) -> tuple[Head, Embed]:
        """See `LanguageModelAdapter.sampling_modules`."""
        head, embed = super().sampling_modules(kind, dtype, clone)
        if kind == "text":
            return head, embed
        return self._visual_head(head), lambda ids: embed(ids + self.first_visual)

    def decode_images(self, ids: Int[Tensor, "B N"]) -> list[Image.Image]:
        """RGB images of codebook indices, one after another: their activations are large."""
        decode, grids = self.model.model.vqmodel.decode, ids.to(self.device).view(-1, 1, *self.encoder.grid)
        pixels = [decode(grid)[0].float().cpu() for grid in grids]
        return self.processor.image_processor.postprocess(pixels, return_tensors="PIL.Image.Image")["pixel_values"]

    def encode_images(self, images: Sequence[Image.Image]) -> Int[Tensor, "B N"]:
        """Codebook indices of images, cropped in the middle and resized to the size that the model generates."""
        return torch.cat([self._codes(self._cropped(image)) for image in images])

    def reconstruct(self, images: Sequence[Image.Image]) -> list[tuple[Image.Image, Image.Image]]:
        """Each image as cropped and resized, and what the image tokenizer makes of it."""
        cropped = [self._cropped(image) for image in images]
        return list(zip(cropped, self.decode_images(self.encode_images(cropped)), strict=True))

    def _visual_head(self, head: Any) -> Head:
        return lambda hidden: nn.functional.linear(hidden, head.weight[self.first_visual :][: self.num_codes])

    def _cropped(self, image: Image.Image) -> Image.Image:
        height, width = (side * self.encoder.factor for side in self.encoder.grid)
        return ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.BICUBIC)

    def _codes(self, image: Image.Image) -> Int[Tensor, "1 N"]:
        found = self.processor.image_processor(images=[image], do_resize=False, return_tensors="pt")
        encoded = self.model.model.vqmodel.encode(found["pixel_values"].to(self.device), found["image_sizes"])
        return encoded.image_tokens[0].reshape(1, -1).cpu()


class Emu3Policy(ImageTokenPolicy):
    """An Emu3 checkpoint in transformers format (Emu3-Chat, Emu3-Gen)."""

    adapter_type = Emu3Adapter


def open_emu3(source: str, dtype: torch.dtype | str) -> tuple[Any, Any]:
    """Model and processor of a folder or hub id; see `open_checkpoint`."""
    return open_checkpoint(Emu3ForConditionalGeneration, source, dtype, _open_processor, "Emu3")


def _open_processor(source: str, _: Any) -> Emu3Processor:
    """By the files themselves: AutoTokenizer may rebuild a tokenizer from its class's name instead."""
    template = Emu3Processor.get_processor_dict(source)[0].get("chat_template")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
    return Emu3Processor(Emu3ImageProcessor.from_pretrained(source), tokenizer, chat_template=template)
