"""A Qwen-VL checkpoint in and out, in the layout of transformers.

transformers' own processors of these models cannot be constructed without torchvision, which their video processors
need; a tokenizer beside the PIL image processor is all that text and images need.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PretrainedConfig,
    PreTrainedTokenizerFast,
    ProcessorMixin,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from motet.core.errors import CheckpointError
from motet.core.registry import first_line
from motet.policies.checkpoints import open_checkpoint
from motet.weights.hf_output import suppress_hf_output

FAMILIES: dict[str, Any] = {
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
    "qwen3_vl": Qwen3VLForConditionalGeneration,
}
"""Model classes by the `model_type` of config.json."""


@dataclass(frozen=True)
class VlmProcessor:
    """The tokenizer, whose chat template is used, and the image processor of a checkpoint."""

    tokenizer: Any
    image_processor: Any

    def save_pretrained(self, folder: Path) -> None:
        """Write tokenizer files, chat template and preprocessor_config.json, as `AutoProcessor` looks for them."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)


def open_vlm(source: str, dtype: torch.dtype | str, max_pixels: int | None = None) -> tuple[Any, VlmProcessor]:
    """Model and processor of a folder or hub id; `dtype` "auto" keeps what is stored.

    `max_pixels` is the largest image that the model is given, larger ones are scaled down; None: the checkpoint's own.

    Raises CheckpointError for a model of another type, for broken files, and unless the weights are all there and
    nothing else is.
    """
    with suppress_hf_output():
        try:
            model_type = PretrainedConfig.get_config_dict(source)[0].get("model_type")
        except Exception as error:  # offline, no such repository, a broken file: each library has its kinds
            raise CheckpointError(
                f"{source!r} cannot be loaded: {first_line(error)}",
                fix="give a hub id, or a folder that transformers saved.",
            ) from error
    if model_type is None:
        fix = "give the folder that holds config.json."
        raise CheckpointError(f"{source!r} holds no config.json that names a model_type.", fix=fix)
    if model_type not in FAMILIES:
        raise CheckpointError(
            f"{source!r} is a {model_type!r} model; vision-language policies are of type {' or '.join(FAMILIES)}.",
            fix="give a Qwen2.5-VL or Qwen3-VL checkpoint (Qwen/Qwen2.5-VL-3B-Instruct).",
        )
    return open_checkpoint(
        FAMILIES[model_type],
        source,
        dtype,
        lambda source, _: _open_processor(source, max_pixels),
        "Qwen2.5-VL or Qwen3-VL",
    )


def _open_processor(source: str, max_pixels: int | None) -> VlmProcessor:
    """By the files themselves: AutoTokenizer may rebuild a tokenizer from its class's name instead."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
    if not tokenizer.chat_template:  # some folders keep it beside the processor only
        tokenizer.chat_template = ProcessorMixin.get_processor_dict(source)[0].get("chat_template")
    images = Qwen2VLImageProcessorPil.from_pretrained(source)
    if max_pixels is not None:
        shortest = min(images.size["shortest_edge"], max_pixels)
        images.size = {"shortest_edge": shortest, "longest_edge": max_pixels}
    return VlmProcessor(tokenizer, images)
