"""From conversations to conditions: the pipeline's own `encode_prompt`, and the images to edit."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from motet.core.conversation import Conversation, Text
from motet.core.errors import CheckpointError, ConfigError, ContextError
from motet.policies.diffusion.models import Condition
from motet.policies.diffusion.models.source_adapter import encode_source

PIPELINES = (
    "StableDiffusion3Pipeline",
    "SanaPipeline",
    "FluxPipeline",
    "FluxKontextPipeline",
    "Flux2Pipeline",
    "Flux2KleinPipeline",
    "QwenImagePipeline",
)
"""The supported pipelines: `encode_prompt` knows their output."""
_CALL_OPTIONS = ("max_sequence_length", "clean_caption", "complex_human_instruction", "text_encoder_out_layers")
"""Options of `encode_prompt` for which a pipeline's `__call__` has defaults of its own."""


def check_pipeline(name: str, source: str) -> None:
    """Raises CheckpointError for a pipeline class that is not supported."""
    if name not in PIPELINES:
        raise CheckpointError(
            f"{source!r} is a {name}, which motet does not support.", fix=f"use one of: {', '.join(PIPELINES)}."
        )


def prompt_of(context: Conversation) -> str:
    """The prompt: the text of the last user turn. Raises ContextError where there is none."""
    for message in reversed(context.messages):
        text = " ".join(part.text for part in message.parts if isinstance(part, Text)).strip()
        if message.role == "user" and text:
            return text
    raise ContextError(
        "Image generation needs a prompt, but no user turn of the context holds text.",
        fix="give GenerateImage a conversation that ends with the prompt, e.g. user(prompt).",
    )


@torch.no_grad()
def encode_prompt(pipeline: Any, prompt: str, *, null: bool = False) -> Condition:
    """A prompt as the pipeline itself encodes it, with the options that its `__call__` would pass; on the CPU.

    One prompt at a time: in a batch its numbers, and so those of replay, would depend on the others. `null` encodes
    the negative prompt of guidance, which SANA does without its instruction to itself.
    """
    accepted = inspect.signature(pipeline.encode_prompt).parameters
    called = inspect.signature(pipeline.__call__).parameters
    options = {name: called[name].default for name in _CALL_OPTIONS if name in accepted and name in called}
    if null and "complex_human_instruction" in options:
        options["complex_human_instruction"] = None
    for name in ("prompt_2", "prompt_3"):
        if name in accepted:
            options[name] = None
    if "do_classifier_free_guidance" in accepted:
        options["do_classifier_free_guidance"] = False
    encoded = pipeline.encode_prompt(prompt=prompt, **options)
    name = type(pipeline).__name__
    if name == "StableDiffusion3Pipeline":
        embeddings, pooled, mask = encoded[0], encoded[2], None
    elif name in ("FluxPipeline", "FluxKontextPipeline"):
        embeddings, pooled, mask = encoded[0], encoded[1], None
    elif name in ("SanaPipeline", "QwenImagePipeline"):
        embeddings, pooled, mask = encoded[0], None, encoded[1]
    else:  # FLUX.2: embeddings and their positions
        embeddings, pooled, mask = encoded[0], None, None
    return Condition(
        _row(embeddings), None if mask is None else _row(mask).bool(), None if pooled is None else _row(pooled)
    )


def source_size(image: Image.Image, height: int, width: int, multiple: int) -> tuple[int, int]:
    """Height and width of an encoded source: its own proportions, the generated image's area, multiples of `multiple`.

    A source with the generated image's proportions gets its size.
    """
    scale = math.sqrt(height * width / (image.width * image.height))
    rows, columns = (max(1, round(side * scale / multiple)) * multiple for side in (image.height, image.width))
    return rows, columns


def encode_sources(denoiser: Any, images: Sequence[Image.Image], height: int, width: int) -> tuple[Tensor, ...]:
    """Images as sources of an edit, on the CPU. Raises ConfigError where the checkpoint does not edit."""
    if images and not denoiser.edits:
        raise ConfigError(
            f"The context holds an image to edit, but this {denoiser.transformer_class} does not edit images.",
            fix="give GenerateImage the prompt alone, or use a checkpoint that edits (FLUX.1-Kontext, FLUX.2).",
        )
    sizes = [
        source_size(one, height, width, denoiser.multiple) if denoiser.any_source_size else (height, width)
        for one in images
    ]
    return tuple(encode_source(denoiser, one, *size).cpu() for one, size in zip(images, sizes, strict=True))


def _row(batch: Tensor) -> Tensor:
    return batch[0].detach().cpu()
