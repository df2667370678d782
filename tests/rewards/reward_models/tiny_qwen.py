"""Tiny random Qwen2-VL and Qwen2.5-VL: the model, a word-level tokenizer with a chat template, the image processor."""

from pathlib import Path
from typing import Any

import torch

SPECIAL = ["[PAD]", "[UNK]", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|image_pad|>", "<|vision_end|>"]
WORDS = [
    "user", "assistant", "rate", "how", "well", "this", "shows", "follows", "looks", "good", "excellent", "fair",
    "poor", "bad", "a", "red", "blue", "dog", "cat", "bus", "man", "on", "the", "is", "END", ":", "1", "2", "3", "4",
    "Final", "Score",
]  # fmt: skip
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {% for part in m.content %}{% if part.type == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)
SIZE = len(SPECIAL) + len(WORDS)


def save_tokenizer(folder: Path) -> None:
    """A tokenizer of whole words, with Qwen's special tokens and a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")
    tokenizer.add_tokens(SPECIAL[2:], special_tokens=True)
    tokenizer.chat_template = CHAT
    tokenizer.save_pretrained(folder)


def make_qwen(kind: str, vocabulary: int = SIZE + 1) -> Any:
    """A random model of that type, with a language-model head."""
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
    )

    rope: dict[str, Any] = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    text: dict[str, Any] = {
        "vocab_size": vocabulary, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rope_scaling": rope, "rope_parameters": rope,
        "max_position_embeddings": 2048, "initializer_range": 0.3, "bos_token_id": 0, "eos_token_id": 3,
        "pad_token_id": 0,
    }  # fmt: skip
    vision: dict[str, Any] = {"patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_heads": 2}
    ids: dict[str, Any] = {
        "image_token_id": 5,
        "video_token_id": 1,
        "vision_start_token_id": 4,
        "vision_end_token_id": 6,
    }
    torch.manual_seed(0)
    if kind == "qwen2_vl":
        vision |= {"depth": 1, "embed_dim": 16, "hidden_size": 32, "mlp_ratio": 2}
        return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **ids)).eval()
    vision |= {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "out_hidden_size": 32, "window_size": 112}
    vision["fullatt_block_indexes"] = [1]
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)).eval()


def save_qwen(folder: Path, kind: str) -> Any:
    """Save model, tokenizer and image processor; returns the model."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    model = make_qwen(kind)
    model.save_pretrained(folder)
    save_tokenizer(folder)
    Qwen2VLImageProcessorPil(size={"shortest_edge": 784, "longest_edge": 3136}).save_pretrained(folder)
    return model
