"""Opening a Janus checkpoint: the files of `JanusForConditionalGeneration` and `JanusProcessor`."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    GenerationConfig,
    JanusForConditionalGeneration,
    JanusProcessor,
    PreTrainedTokenizerFast,
)

from motet.policies.checkpoints import open_checkpoint
from motet.policies.janus.images import ImageProcessor
from motet.policies.janus.prompt_encoding import ContextEncoder


def open_janus(source: str, dtype: torch.dtype | str) -> tuple[Any, Any]:
    """Model and processor of a folder or hub id; `dtype` "auto" keeps what is stored.

    Raises CheckpointError unless the weights are all there and nothing else is.
    """
    model, processor = open_checkpoint(
        JanusForConditionalGeneration,
        source,
        dtype,
        lambda source, model: open_processor(source, model.config.vision_config.num_image_tokens),
        "Janus or Janus-Pro",
    )
    if model.lm_head.weight is not model.get_input_embeddings().weight:
        model.config.tie_word_embeddings = False  # JanusConfig's default is True, and published configs do not say
    return model, processor


def fill_generation_config(model: Any, encoder: ContextEncoder) -> None:
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


def open_processor(source: str, num_image_tokens: int) -> JanusProcessor:
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
