"""A narrow checkpoint in the shape of the published Janus-Pro ones (deepseek-community/Janus-Pro-1B and -7B).

As on the hub, so here: a byte-level BPE tokenizer under the class name LlamaTokenizerFast, special tokens at ids that
differ between the two sizes, 576 image tokens of 384 x 384 pixels, 16384 codes of 8 numbers, an untied head under a
config.json that does not say so, bfloat16 shards, and JSON as transformers 4.52 wrote it. Only the widths are tiny.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    JanusConfig,
    JanusForConditionalGeneration,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
)

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
IMAGE = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
OTHERS = ["<patch_placeholder>", "<|ref|>", "<|/ref|>", "<|det|>", "<|/det|>", "<|grounding|>"]
ROLES = ["<|User|>", "<|Assistant|>"]
LETTERS = list("øöúÿõ÷ûýÀùÁþü")
"""Added tokens that are not special: the 7B tokenizer has them between EOS and PAD, so all later ids are 13 higher."""

# What the published template renders, in our own words: turns end with two newlines or EOS, edges are stripped, texts
# that follow each other are joined by a space, and pictures stand on lines of their own.
CHAT_TEMPLATE = """
{%- for message in messages -%}
  {%- set role = message['role']|lower -%}
  {%- if role == 'user' -%}{{ '<|User|>: ' }}
  {%- elif role == 'assistant' -%}{{ '<|Assistant|>: ' }}
  {%- else -%}{{ message['role'].capitalize() + ': ' }}
  {%- endif -%}
  {%- for part in message['content'] -%}
    {%- if part['type'] == 'image' -%}
      {{ ('' if loop.first else '\n') + '<image_placeholder>' + ('' if loop.last else '\n') }}
    {%- else -%}
      {%- set text = part['text'].lstrip() if loop.first else part['text'] -%}
      {%- set text = text.rstrip() if loop.last else text -%}
      {{ (' ' if not loop.first and loop.previtem['type'] == 'text' else '') + text }}
    {%- endif -%}
  {%- endfor -%}
  {%- if not loop.last or add_generation_prompt -%}
    {{ '\n\n' if role == 'user' else '<｜end▁of▁sentence｜>' }}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|Assistant|>:' }}{%- endif -%}
"""


def publish(folder: Path, size: str, use_default_system_prompt: bool) -> None:
    """Write a checkpoint of a size, "1B" or "7B": the ids of the special tokens are all that differs."""
    folder.mkdir(parents=True)
    tokenizer = _tokenizer(size)
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {name: tokenizer.token_to_id(name) for name in (BOS, EOS, PAD, *IMAGE.values())}
    _write(folder / "tokenizer_config.json", _tokenizer_config())
    _write(folder / "preprocessor_config.json", PREPROCESSOR)
    _write(
        folder / "processor_config.json",
        {"processor_class": "JanusProcessor", "use_default_system_prompt": use_default_system_prompt},
    )
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE.strip(), encoding="utf-8")
    _model(tokenizer.get_vocab_size() + 24, ids).save_pretrained(folder, max_shard_size="1MB")
    generation = {
        "bos_token_id": ids[BOS],
        "eos_token_id": ids[EOS],
        "generation_kwargs": {"boi_token_id": ids["<begin_of_image>"]},
        "guidance_scale": 5,
        "pad_token_id": ids[PAD],
        "temperature": 1,
    }
    _write(folder / "generation_config.json", generation)
    config = json.loads((folder / "config.json").read_text())
    for section in (config, config["text_config"], config["vision_config"], config["vq_config"]):
        section.pop("tie_word_embeddings", None)
        section.pop("dtype", None)
    config["torch_dtype"] = config["text_config"]["torch_dtype"] = "bfloat16"
    config["text_config"] |= {"rope_theta": config["text_config"].pop("rope_parameters")["rope_theta"]}
    config["text_config"] |= {"rope_scaling": None}
    _write(folder / "config.json", config)


PREPROCESSOR = {
    "background_color": [127, 127, 127],
    "do_convert_rgb": None,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "JanusImageProcessor",
    "image_std": [0.5, 0.5, 0.5],
    "min_size": 14,
    "processor_class": "JanusProcessor",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": {"height": 384, "width": 384},
}


def _write(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def _tokenizer(size: str) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    splits = ["[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+"]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            *(pre_tokenizers.Split(Regex(split), "isolated") for split in splits),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(set(pre_tokenizers.ByteLevel.alphabet()) - set(LETTERS))  # bytes that no UTF-8 text has
    trainer = trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    corpus = ["You are a helpful language and vision assistant.", "A photo of two red circles. What is in the image?"]
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.add_special_tokens([_special(BOS), _special(EOS)])
    if size == "7B":
        tokenizer.add_tokens([AddedToken(letter, special=False, normalized=True) for letter in LETTERS])
    image, begin, end = IMAGE.values()
    tokenizer.add_special_tokens([_special(name) for name in [PAD, begin, end, image, *OTHERS, *ROLES]])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def _special(name: str) -> AddedToken:
    return AddedToken(name, special=True, normalized=False)


def _tokenizer_config() -> dict[str, Any]:
    return {
        "additional_special_tokens": [IMAGE["image_token"], *OTHERS, *ROLES],
        "bos_token": BOS,
        "clean_up_tokenization_spaces": False,
        "eos_token": EOS,
        "extra_special_tokens": IMAGE,
        **IMAGE,
        "legacy": True,
        "model_max_length": 16384,
        "pad_token": PAD,
        "processor_class": "JanusProcessor",
        "tokenizer_class": "LlamaTokenizerFast",
        "unk_token": None,
        "use_default_system_prompt": True,
    }


def _model(vocab_size: int, ids: dict[str, int]) -> JanusForConditionalGeneration:
    torch.manual_seed(0)
    width = 32
    text = LlamaConfig(
        vocab_size=vocab_size,  # larger than the tokenizer, as 102400 is
        hidden_size=width,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=2048,
        rms_norm_eps=1e-6,
        bos_token_id=ids[BOS],
        eos_token_id=ids[EOS],
        pad_token_id=ids[PAD],
        tie_word_embeddings=False,
    )
    vision = JanusVisionConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, projection_dim=width)
    vq = JanusVQVAEConfig(
        base_channels=32, latent_channels=32, num_res_blocks=1, projection_dim=width, image_token_embed_dim=width
    )
    config = JanusConfig(
        text_config=text,
        vision_config=vision,
        vq_config=vq,
        image_token_id=ids["<image_placeholder>"],
        tie_word_embeddings=False,
    )
    model = JanusForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.7 / parameter[0].numel() ** 0.5)
        model.lm_head.weight.normal_(std=0.4)
        model.model.generation_head.vision_head.weight.normal_(std=0.6)
    return model.to(torch.bfloat16)
