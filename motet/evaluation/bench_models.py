"""What benchmarks of training share: small random models, prompts, and the shape of a step."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

from motet.policies.janus import JanusPolicy
from motet.policies.tiny.janus import TinySizes, random_janus, tiny_processor, tiny_tokenizer

Seconds = Mapping[str, float]
"""`generate`, `learn`, and their sum, `step`."""

IMAGE_GUIDANCE_SCALE = 5.0
"""Images are sampled from the mixture with guidance and scored by the conditional branch, as CoRL's code does."""

WORDS = re.findall(
    "[a-z]+",
    "a the one two three four red green blue yellow circle square triangle left right of above below is what how many "
    "colour and behind",
)
"""What prompts are made of; each is a token of its own."""


@dataclass(frozen=True)
class BenchSizes:
    """Sizes of a random Janus. Images are `image_side` tokens wide; the vision tower is as small as it can be."""

    hidden: int = 384
    layers: int = 8
    heads: int = 6
    intermediate: int = 1024
    vocab: int = 32768
    codes: int = 1024
    image_side: int = 12
    max_positions: int = 2048


def make_policy(sizes: BenchSizes, seed: int = 0) -> JanusPolicy:
    """A policy in float32 over a random Janus of these sizes, all of whose language model trains."""
    tokenizer = tiny_tokenizer([f" {word}" for word in WORDS] * 2, vocab_size=400)
    text = LlamaConfig(
        vocab_size=sizes.vocab,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.intermediate,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=sizes.max_positions,
        rms_norm_eps=1e-6,
    )
    patch = 4
    vision = JanusVisionConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=patch * sizes.image_side,
        patch_size=patch,
        projection_dim=sizes.hidden,
        num_image_tokens=sizes.image_side**2,
        mlp_ratio=1.0,
    )
    vq = JanusVQVAEConfig(
        embed_dim=8,
        num_embeddings=sizes.codes,
        latent_channels=32,
        base_channels=32,
        channel_multiplier=[1] * patch.bit_length(),
        num_res_blocks=1,
        projection_dim=sizes.hidden,
        image_token_embed_dim=sizes.hidden,
    )
    model = random_janus(tokenizer, text, vision, vq, seed)
    policy = JanusPolicy(model, tiny_processor(tokenizer, TinySizes(image=patch * sizes.image_side, patch=patch)))
    policy.train_parts(("language_model", "lm_head"))
    return policy


def make_prompts(count: int, words: int, seed: int = 0) -> list[str]:
    """Different prompts of `words` words, each of which is a token."""
    draws = random.Random(seed)
    return [" ".join(draws.choice(WORDS) for _ in range(words)) for _ in range(count)]


@dataclass(frozen=True)
class StepShape:
    """A step on either side: P prompts of about T tokens, G generations of N tokens each, one optimizer step.

    Images have as many tokens as the model says.
    """

    prompts: int = 4
    generations: int = 8
    prompt_tokens: int = 64
    tokens: int = 64
    beta: float = 0.0
    learning_rate: float = 1e-6
    seed: int = 0

    def texts(self) -> list[str]:
        """The prompts."""
        return make_prompts(self.prompts, self.prompt_tokens, self.seed)


def alternating_reward(completions: Sequence[Any], **_: Any) -> list[float]:
    """Rewards that differ within every group, whatever was sampled."""
    return [float(number % 3) for number, _ in enumerate(completions)]
