"""Small Emu3 models of the real class, for tests.

The weights are random; see `motet.policies.tiny.common` on how they start.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import (
    Emu3Config,
    Emu3ForConditionalGeneration,
    Emu3Processor,
    GenerationConfig,
    PreTrainedTokenizerFast,
)
from transformers.models.emu3.image_processing_emu3 import Emu3ImageProcessor

from motet.policies.tiny.common import byte_level_tokenizer, initialise

TOKENS = {
    "bos_token": "<|extra_203|>",
    "eos_token": "<|extra_204|>",
    "pad_token": "<|endoftext|>",
    "image_token": "<image>",
    "boi_token": "<|image start|>",
    "eoi_token": "<|image end|>",
    "image_wrapper_token": "<|image token|>",
    "eof_token": "<|extra_201|>",
}
END_OF_LINE = "<|extra_200|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'] | upper + ': ' }}{% endif %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}<image>{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
"""The layout of Emu3-Chat's own: of a message first the images, then the texts."""


@dataclass(frozen=True)
class TinyEmu3Sizes:
    """Sizes of a tiny Emu3. Images are `image` pixels wide and `image / 8` tokens wide; there are `codes` image tokens.

    `vq_channels` is a multiple of 32.
    """

    hidden: int = 32
    layers: int = 2
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 64
    image: int = 32
    codes: int = 64
    vq_channels: int = 32
    max_positions: int = 256


def make_tiny_emu3(
    corpus: Iterable[str], *, sizes: TinyEmu3Sizes | None = None, vocab_size: int = 320, seed: int = 0
) -> tuple[Any, Emu3Processor]:
    """A randomly initialised `Emu3ForConditionalGeneration` and its processor."""
    chosen = sizes or TinyEmu3Sizes()
    tokenizer = tiny_emu3_tokenizer(corpus, chosen.codes, vocab_size)
    area = chosen.image**2
    images = Emu3ImageProcessor(min_pixels=area, max_pixels=area, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return tiny_emu3(tokenizer, chosen, seed), Emu3Processor(images, tokenizer, chat_template=CHAT_TEMPLATE)


def tiny_emu3_tokenizer(corpus: Iterable[str], codes: int, vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Emu3's special tokens and one visual token per code behind the text."""
    tokenizer = byte_level_tokenizer(corpus, vocab_size, [*TOKENS.values(), END_OF_LINE])
    tokenizer.add_special_tokens([f"<|visual token {code:06d}|>" for code in range(codes)])
    named = {name: TOKENS[name] for name in ("bos_token", "eos_token", "pad_token")}
    others = {name: token for name, token in TOKENS.items() if name not in named}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, extra_special_tokens=others, padding_side="left", **named
    )


def tiny_emu3(tokenizer: PreTrainedTokenizerFast, sizes: TinyEmu3Sizes, seed: int) -> Emu3ForConditionalGeneration:
    """A randomly initialised model, whose image tokenizer makes one token of 8 x 8 pixels."""
    torch.manual_seed(seed)
    ids = {f"{name}_id": int(tokenizer.convert_tokens_to_ids(token)) for name, token in TOKENS.items()}  # type: ignore[arg-type]
    special = {name: ids[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads,
        "max_position_embeddings": sizes.max_positions,
        **special,
    }
    vq = {
        "codebook_size": sizes.codes,
        "base_channels": sizes.vq_channels,
        "channel_multiplier": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "hidden_size": sizes.vq_channels,
        "temporal_downsample_factor": 2,
    }
    model = Emu3ForConditionalGeneration(
        Emu3Config(text_config=text, vq_config=vq, vocabulary_map=tokenizer.get_vocab())  # type: ignore[arg-type]
    )
    initialise([model.model.text_model])
    nn.init.normal_(model.lm_head.weight, std=0.02)
    nn.init.normal_(model.model.vqmodel.quantize.embedding.weight)
    model.generation_config = GenerationConfig(**special)
    return model.eval()
