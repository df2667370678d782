"""Small Qwen-VL models of the real classes: for tests, benchmarks and small worlds.

The weights are random; see `motet.policies.tiny.common` on how they start.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen3VLConfig
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from motet.core.errors import ConfigError
from motet.policies.qwen_vl.checkpoint import FAMILIES, VlmProcessor
from motet.policies.tiny.common import byte_level_tokenizer, initialise

END_OF_TEXT, BEGIN_TURN, END_TURN = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
BEGIN_VISION, END_VISION, IMAGE, VIDEO = "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"
SPECIALS = (END_OF_TEXT, BEGIN_TURN, END_TURN, BEGIN_VISION, END_VISION, IMAGE, VIDEO)
CORPUS = ("<|im_start|>system\nuser\nassistant\n", "what colour is the circle?", "a red circle left of a blue square")
"""Words that a tokenizer learns when nobody gives others."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class TinyVlmSizes:
    """Sizes of a tiny Qwen-VL. Square images become `image` pixels wide and `image / (patch * merge)` tokens wide.

    Others keep their shape and cover about as many pixels. `window` is the side in pixels of Qwen2.5-VL's attention
    windows, which all vision layers but the last keep to; `deepstack` are the vision layers that Qwen3-VL shows to its
    first language layers. The head width is `hidden / heads`, a multiple of 8.
    """

    hidden: int = 128
    layers: int = 4
    heads: int = 8
    kv_heads: int | None = None
    intermediate: int = 352
    image: int = 32
    patch: int = 4
    merge: int = 2
    vision_hidden: int = 96
    vision_layers: int = 3
    vision_heads: int = 4
    vision_intermediate: int = 288
    window: int = 16
    deepstack: tuple[int, ...] = (0,)
    max_positions: int = 512
    tied: bool = False


def make_tiny_vlm(
    family: str = "qwen2_5_vl",
    *,
    sizes: TinyVlmSizes | None = None,
    tokenizer: PreTrainedTokenizerFast | None = None,
    corpus: Iterable[str] = CORPUS,
    vocab_size: int = 512,
    seed: int = 0,
) -> tuple[Any, VlmProcessor]:
    """A randomly initialised model of the family ("qwen2_5_vl" or "qwen3_vl") and its processor.

    Without a `tokenizer` one of `vocab_size` tokens is made from the corpus. Raises ConfigError for another family.
    """
    if family not in FAMILIES:
        raise ConfigError(f"There is no tiny model of family {family!r}.", fix=f"use {' or '.join(FAMILIES)}.")
    chosen = sizes or TinyVlmSizes()
    words = tokenizer or tiny_vlm_tokenizer(corpus, vocab_size)
    return tiny_vlm(family, words, chosen, seed), VlmProcessor(words, _image_processor(chosen))


def tiny_vlm_tokenizer(corpus: Iterable[str], vocab_size: int = 1024) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with Qwen's special tokens and a chat template in Qwen's manner."""
    return PreTrainedTokenizerFast(
        tokenizer_object=byte_level_tokenizer(corpus, vocab_size, SPECIALS),
        eos_token=END_TURN,
        pad_token=END_OF_TEXT,
        extra_special_tokens={"image_token": IMAGE, "video_token": VIDEO},
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
    )


def tiny_vlm(family: str, tokenizer: PreTrainedTokenizerFast, sizes: TinyVlmSizes, seed: int) -> Any:
    """A randomly initialised model whose `generate` stops where Qwen's does: at the turn's end or the text's."""
    torch.manual_seed(seed)
    ids = {token: int(tokenizer.convert_tokens_to_ids(token)) for token in SPECIALS}  # type: ignore[arg-type]
    shared = {
        "text_config": _text(family, sizes, len(tokenizer), ids),
        "vision_config": _vision(family, sizes),
        "image_token_id": ids[IMAGE],
        "video_token_id": ids[VIDEO],
        "vision_start_token_id": ids[BEGIN_VISION],
        "vision_end_token_id": ids[END_VISION],
        "tie_word_embeddings": sizes.tied,
    }
    config = (Qwen2_5_VLConfig if family == "qwen2_5_vl" else Qwen3VLConfig)(**shared)
    model = FAMILIES[family](config)
    initialise((model.model.language_model, model.model.visual))
    if not sizes.tied:
        nn.init.normal_(model.lm_head.weight, std=0.02)
    model.generation_config = GenerationConfig(
        eos_token_id=[ids[END_TURN], ids[END_OF_TEXT]], pad_token_id=ids[END_OF_TEXT]
    )
    return model.eval()


def _text(family: str, sizes: TinyVlmSizes, vocabulary: int, ids: dict[str, int]) -> dict[str, Any]:
    width = sizes.hidden // sizes.heads
    beside = width // 8  # of the width / 2 rotated pairs, height and width take a quarter each, time the rest
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [width // 2 - 2 * beside, beside, beside]}
    settings = {
        "vocab_size": vocabulary,
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "num_key_value_heads": sizes.kv_heads or sizes.heads,
        "max_position_embeddings": sizes.max_positions,
        "rms_norm_eps": 1e-6,
        "bos_token_id": None,
        "eos_token_id": ids[END_TURN],
        "pad_token_id": ids[END_OF_TEXT],
        "rope_parameters": rope,
    }
    if family == "qwen3_vl":
        return {**settings, "head_dim": width, "rope_parameters": {**rope, "mrope_interleaved": True}}
    return settings


def _vision(family: str, sizes: TinyVlmSizes) -> dict[str, Any]:
    settings = {
        "depth": sizes.vision_layers,
        "hidden_size": sizes.vision_hidden,
        "intermediate_size": sizes.vision_intermediate,
        "num_heads": sizes.vision_heads,
        "patch_size": sizes.patch,
        "spatial_merge_size": sizes.merge,
        "out_hidden_size": sizes.hidden,
    }
    if family == "qwen3_vl":
        places = (sizes.image // sizes.patch) ** 2
        return {**settings, "num_position_embeddings": places, "deepstack_visual_indexes": list(sizes.deepstack)}
    return {**settings, "window_size": sizes.window, "fullatt_block_indexes": [sizes.vision_layers - 1]}


def _image_processor(sizes: TinyVlmSizes) -> Qwen2VLImageProcessorPil:
    """Images of any shape, resized to about `image`^2 pixels and normalised to [-1, 1]."""
    area = sizes.image**2
    return Qwen2VLImageProcessorPil(
        size={"shortest_edge": area, "longest_edge": area},
        patch_size=sizes.patch,
        merge_size=sizes.merge,
        temporal_patch_size=2,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
