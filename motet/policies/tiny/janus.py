"""Small Janus models of the real class: for the shapes world, for tests and for benchmarks.

The weights are random; see `motet.policies.tiny.common` on how they start.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusProcessor,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from motet.policies.janus.images import ImageProcessor
from motet.policies.tiny.common import byte_level_tokenizer, initialise

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
IMAGE, BEGIN_IMAGE, END_IMAGE = "<image_placeholder>", "<begin_of_image>", "<end_of_image>"
USER, ASSISTANT = "<|User|>", "<|Assistant|>"

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|User|>: {% elif message['role'] == 'assistant' %}<|Assistant|>: {% endif %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{% if not loop.first %}{{ '\n' }}{% endif %}<image_placeholder>"
    "{% if not loop.last %}{{ '\n' }}{% endif %}"
    "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}"
    "{% if not loop.last or add_generation_prompt %}"
    "{% if message['role'] == 'assistant' %}<｜end▁of▁sentence｜>{% else %}{{ '\n\n' }}{% endif %}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|Assistant|>:{% endif %}"
)


@dataclass(frozen=True)
class TinySizes:
    """Sizes of a tiny Janus. Images are `image` pixels wide and `image / patch` tokens wide."""

    hidden: int = 128
    layers: int = 4
    heads: int = 8
    kv_heads: int | None = None
    intermediate: int = 352
    image: int = 32
    patch: int = 4
    codes: int = 128
    code_dim: int = 8
    vision_hidden: int = 96
    vision_layers: int = 3
    vision_heads: int = 4
    vq_channels: int = 32
    vq_res_blocks: int = 1
    max_positions: int = 512


def tiny_tokenizer(corpus: Iterable[str], vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Janus's special tokens: frequent words are one token, any text can be written."""
    specials = [BOS, EOS, PAD, IMAGE, BEGIN_IMAGE, END_IMAGE, USER, ASSISTANT]
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level_tokenizer(corpus, vocab_size, specials),
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        extra_special_tokens={"image_token": IMAGE, "boi_token": BEGIN_IMAGE, "eoi_token": END_IMAGE},
        padding_side="left",
    )


def tiny_processor(tokenizer: PreTrainedTokenizerFast, sizes: TinySizes) -> JanusProcessor:
    """Processor in Janus-Pro's layout; images are normalised to [-1, 1]."""
    image_processor = ImageProcessor(
        size={"height": sizes.image, "width": sizes.image}, image_mean=[0.5] * 3, image_std=[0.5] * 3, min_size=14
    )
    processor = JanusProcessor(image_processor, tokenizer, chat_template=CHAT_TEMPLATE, use_default_system_prompt=False)
    processor.num_image_tokens = (sizes.image // sizes.patch) ** 2
    return processor


def tiny_janus(tokenizer: PreTrainedTokenizerFast, sizes: TinySizes, seed: int) -> JanusForConditionalGeneration:
    """A randomly initialised `JanusForConditionalGeneration` with an untied head, as in Janus-Pro."""
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads or sizes.heads,
        max_position_embeddings=sizes.max_positions,
        rms_norm_eps=1e-6,
    )
    vision = JanusVisionConfig(
        hidden_size=sizes.vision_hidden,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
        image_size=sizes.image,
        patch_size=sizes.patch,
        projection_dim=sizes.hidden,
        num_image_tokens=(sizes.image // sizes.patch) ** 2,
        mlp_ratio=3.0,
    )
    levels = sizes.patch.bit_length()  # every level but the last halves the side
    vq = JanusVQVAEConfig(
        embed_dim=sizes.code_dim,
        num_embeddings=sizes.codes,
        latent_channels=sizes.vq_channels,
        base_channels=sizes.vq_channels,
        channel_multiplier=[1] * levels,
        num_res_blocks=sizes.vq_res_blocks,
        projection_dim=sizes.hidden,
        image_token_embed_dim=sizes.hidden,
    )
    return random_janus(tokenizer, text, vision, vq, seed)


def random_janus(
    tokenizer: PreTrainedTokenizerFast,
    text: LlamaConfig,
    vision: JanusVisionConfig,
    vq: JanusVQVAEConfig,
    seed: int,
) -> JanusForConditionalGeneration:
    """A Janus of these sizes, whose special tokens are the tokenizer's."""
    torch.manual_seed(seed)
    ids = [int(tokenizer.convert_tokens_to_ids(token)) for token in (BOS, EOS, PAD, IMAGE, BEGIN_IMAGE)]  # type: ignore[arg-type]
    bos_id, eos_id, pad_id, image_id, begin_image_id = ids
    text.bos_token_id, text.eos_token_id, text.pad_token_id = bos_id, eos_id, pad_id
    text.tie_word_embeddings = False
    model = JanusForConditionalGeneration(
        JanusConfig(
            text_config=text,
            vision_config=vision,
            vq_config=vq,
            image_token_id=image_id,
            tie_word_embeddings=False,
        )
    )
    _initialise(model)
    model.generation_config = GenerationConfig(
        bos_token_id=bos_id,
        eos_token_id=eos_id,
        pad_token_id=pad_id,
        generation_kwargs={"boi_token_id": begin_image_id},
    )
    return model.eval()


@torch.no_grad()
def _initialise(model: JanusForConditionalGeneration) -> None:
    inner = model.model
    initialise(
        (inner.language_model, inner.vision_model, inner.aligner, inner.generation_aligner, inner.generation_head)
    )
    nn.init.normal_(inner.generation_embeddings.weight, std=1.0)
    nn.init.normal_(model.lm_head.weight, std=0.02)
    nn.init.normal_(inner.generation_head.vision_head.weight, std=0.02)
