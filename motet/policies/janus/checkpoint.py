"""A Janus checkpoint in and out: the files of `JanusForConditionalGeneration` and `JanusProcessor`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    GenerationConfig,
    JanusForConditionalGeneration,
    JanusProcessor,
    PreTrainedTokenizerFast,
)

from motet.errors import CheckpointError
from motet.lookup import first_line
from motet.policies.janus.contexts import ContextEncoder
from motet.policies.janus.pictures import ImageProcessor
from motet.quiet import quiet


def open_janus(source: str, dtype: torch.dtype | str) -> tuple[Any, Any]:
    """Model and processor of a folder or hub id; `dtype` "auto" keeps what is stored.

    Raises CheckpointError unless the weights are all there and nothing else is: transformers fills gaps with random
    weights and only warns.
    """
    with quiet():
        try:
            loaded: Any = JanusForConditionalGeneration.from_pretrained(
                source, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
            )
            model, found = loaded
            processor = _open_processor(source, model.config.vision_config.num_image_tokens)
        except Exception as error:  # each library below raises its own kinds on a broken file
            raise CheckpointError(
                f"{source!r} cannot be loaded: {first_line(error)}",
                fix="give a folder that JanusForConditionalGeneration and JanusProcessor saved, or a hub id.",
            ) from error
    _require_same_keys(source, "lacks", found["missing_keys"])
    _require_same_keys(source, "has unknown", found["unexpected_keys"])
    _require_same_keys(source, "has, in another shape,", [key[0] for key in found["mismatched_keys"]])
    if model.lm_head.weight is not model.get_input_embeddings().weight:
        model.config.tie_word_embeddings = False  # JanusConfig's default is True, and published configs do not say
    return model, processor


def settle_generation_config(model: Any, encoder: ContextEncoder) -> None:
    """Give the model what transformers' own `generate` looks up, if it lacks it.

    A fresh config, because what is added to one that was derived from the model is lost on reload.
    """
    if not getattr(model.generation_config, "generation_kwargs", None):
        model.generation_config = GenerationConfig(
            bos_token_id=encoder.bos_id,
            eos_token_id=encoder.eos_id,
            pad_token_id=encoder.pad_id,
            generation_kwargs={"boi_token_id": encoder.begin_image_id},
        )


def save_janus(folder: Path, wrapped: Any, processor: Any) -> None:
    """Weights (or the adapter), configs, tokenizer and processor.

    Raises CheckpointError when they cannot be written.
    """
    try:
        with quiet():
            wrapped.save_pretrained(folder)
            processor.save_pretrained(folder)
        _declare_dtype(folder, {parameter.dtype for parameter in wrapped.parameters()})
        for file in folder.glob("*.safetensors"):  # safetensors writes for the owner only
            shutil.copymode(folder / "tokenizer_config.json", file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{str(folder)!r} cannot be written: {first_line(error)}",
            fix="check the disk and the folder's permissions.",
        ) from error


def _open_processor(source: str, num_image_tokens: int) -> JanusProcessor:
    """The processor, put together by hand.

    AutoTokenizer obeys a tokenizer_class of LlamaTokenizerFast, which Janus-Pro's files name, and before transformers
    5.23 loses all spaces of such a byte-level tokenizer (transformers issue 45488); AutoImageProcessor may want
    torchvision.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(source)
    image_processor = ImageProcessor.from_pretrained(source)
    settings, _ = JanusProcessor.get_processor_dict(source)
    processor = JanusProcessor(
        image_processor,
        tokenizer,
        chat_template=settings.get("chat_template"),
        use_default_system_prompt=settings.get("use_default_system_prompt", False),
    )
    processor.num_image_tokens = settings.get("num_image_tokens", num_image_tokens)  # transformers 5.0 does not save it
    return processor


def _require_same_keys(source: str, verb: str, keys: Collection[str]) -> None:
    if keys:
        named = ", ".join(sorted(keys)[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
        raise CheckpointError(
            f"{source!r} {verb} weights: {named}.",
            fix="give the complete checkpoint of a Janus or Janus-Pro model in transformers format.",
        )


def _declare_dtype(folder: Path, dtypes: set[torch.dtype]) -> None:
    """Weights that train are float32 beside frozen ones of the checkpoint's type.

    transformers writes the type of the first weight into config.json and casts all to it on loading: name the widest.
    """
    file = folder / "config.json"
    if torch.float32 in dtypes and len(dtypes) > 1 and file.is_file():
        config = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps({**config, "dtype": "float32"}, indent=2) + "\n", encoding="utf-8")
