"""Write a Janus of a published size with random weights, to measure the time and memory of a training step.

    python scripts/make_janus.py --size Janus-Pro-1B --output runs/random_janus
    motet bench step recipes/janus_pro_1b_step.yaml policy.path=runs/random_janus

The tokenizer is small, with Janus's special tokens; the language model has embeddings for all 102,400 published tokens.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import (
    JanusForConditionalGeneration,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from motet.convert.janus_config import PRESETS
from motet.policies.tiny.janus import TinySizes, random_janus, tiny_processor, tiny_tokenizer
from motet.shapes.world import ShapesRows


def make_janus(size: str, layers: int | None, seed: int) -> JanusForConditionalGeneration:
    """A Janus of a published size with random weights, optionally with fewer layers in its language model."""
    text = {key: value for key, value in PRESETS[size]["language_config"].items() if key != "model_type"}
    text["num_hidden_layers"] = layers or text["num_hidden_layers"]
    width = text["hidden_size"]
    vision = JanusVisionConfig(projection_dim=width)
    vq = JanusVQVAEConfig(projection_dim=width, image_token_embed_dim=width)
    return random_janus(_tokenizer(), LlamaConfig(**text), vision, vq, seed)


def _tokenizer() -> PreTrainedTokenizerFast:
    rows = [ShapesRows("train", 0, {}).row(index) for index in range(200)]
    return tiny_tokenizer([text for row in rows for text in (row["prompt"], row["question"], row["solution"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sorted(PRESETS), default="Janus-Pro-1B")
    parser.add_argument("--layers", type=int, help="layers of the language model; default: as published")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.output.exists() and any(arguments.output.iterdir()):
        parser.error(f"{arguments.output} is in use: give another --output")
    model = make_janus(arguments.size, arguments.layers, arguments.seed)
    model.to(torch.bfloat16).save_pretrained(arguments.output)
    tiny_processor(_tokenizer(), TinySizes(image=384, patch=16)).save_pretrained(arguments.output)
    sizes = {"language model": model.model.language_model, "head": model.lm_head, "all": model}
    counts = ", ".join(
        f"{name} {sum(p.numel() for p in part.parameters()) / 1e6:,.0f} M" for name, part in sizes.items()
    )
    print(f"{arguments.output}: {counts}")


if __name__ == "__main__":
    main()
