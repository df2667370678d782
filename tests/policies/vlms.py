"""Tiny Qwen-VLs, and what transformers' own modules make of a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from motet.core.conversation import Conversation, assistant, user
from motet.core.protocols import Request
from motet.core.trajectory import Act, Encoding
from motet.policies.qwen_vl import VlmPolicy
from motet.policies.qwen_vl.checkpoint import open_vlm
from motet.policies.tiny.qwen_vl import TinyVlmSizes, make_tiny_vlm
from tests.policies.teacher import truncated

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
WORDS = ["what colour is it?", "a blue star left of a green square", "<think>three</think>", "system user assistant"]
SIZES = TinyVlmSizes(
    hidden=32,
    layers=3,
    heads=4,
    kv_heads=2,
    intermediate=64,
    vision_hidden=32,
    vision_layers=2,
    vision_heads=2,
    vision_intermediate=64,
    max_positions=160,
)


def tiny(family: str, **sizes: Any) -> tuple[Any, Any]:
    """Model and processor, with biases that do something and logits that are far from uniform."""
    model, processor = make_tiny_vlm(family, sizes=replace(SIZES, **sizes), corpus=WORDS, vocab_size=320)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.35)
        for name, weight in model.named_parameters():
            if weight.ndim == 1:  # norms and biases
                weight.add_(0.3 * torch.randn_like(weight))
            elif "pos_embed" in name or "patch_embed" in name:
                weight.normal_(std=0.5)
    return model, processor


def save_tiny(folder: Path, family: str, **sizes: Any) -> Path:
    """`tiny` as a checkpoint folder."""
    model, processor = tiny(family, **sizes)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def open_policy(folder: Path, **settings: Any) -> VlmPolicy:
    """The policy of a folder, language model and head trainable, in float32."""
    policy = VlmPolicy(*open_vlm(str(folder), torch.float32), **settings)
    policy.train_parts(["language_model", "lm_head"])
    return policy


def conversations() -> list[Conversation]:
    """Of different lengths: without a picture, with one, with two of other shapes."""
    wide, tall = Image.new("RGB", (20, 12), "red"), Image.new("RGB", (9, 30), "green")
    wide.paste("blue", (10, 0, 20, 12))
    square = Image.radial_gradient("L").resize((32, 32)).convert("RGB")
    asked = user(square, "what colour is it?")
    return [user("a blue star"), asked, user(tall, "what?") + assistant("green") + user(wide, "left of it?")]


def requests(*contexts: Conversation, n: int = 2) -> list[Request]:
    """`n` text requests for each context."""
    return [Request("text", "text", context, (7, k, g)) for k, context in enumerate(contexts) for g in range(n)]


def worst(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Largest absolute difference, of tensors that must agree in shape."""
    assert [a.shape for a in ours] == [b.shape for b in theirs]
    return max(float((a - b).detach().abs().max()) for a, b in zip(ours, theirs, strict=True))


def shown(policy: VlmPolicy, encoding: Encoding, length: int) -> dict[str, Tensor]:
    """What transformers' model wants beside the ids of a sequence of this length that begins with the context."""
    types = torch.zeros(1, length, dtype=torch.int)
    types[0, : len(encoding.ids)] = encoding.ids == policy.encoder.image_id
    if encoding.pixels is None or encoding.image_sizes is None:
        return {}
    return {"pixel_values": encoding.pixels, "image_grid_thw": encoding.image_sizes, "mm_token_type_ids": types}


@torch.no_grad()
def teacher_forced(policy: VlmPolicy, act: Act) -> Tensor:
    """`[N]` log-probs of the act's scoring distribution, by transformers' own forward pass over ids."""
    ids = torch.cat([act.encoding.ids, act.ids])
    assert not (act.ids == policy.encoder.image_id).any(), "transformers would look for a picture"
    logits = policy.model(input_ids=ids[None], **shown(policy, act.encoding, len(ids))).logits[0]
    probs = torch.softmax(logits[len(act.encoding.ids) - 1 : -1] / (act.sampling.temperature or 1.0), dim=-1)
    probs = truncated(probs, act.sampling.top_k, act.sampling.top_p, act.sampling.min_p)
    return probs.gather(1, act.ids.unsqueeze(1)).squeeze(1).log()


def generated(policy: VlmPolicy, encoding: Encoding, max_tokens: int) -> list[int]:
    """What transformers' `generate` writes greedily."""
    ids = encoding.ids[None]
    theirs = policy.model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_tokens,
        do_sample=False,
        **shown(policy, encoding, ids.shape[1]),
    )
    return theirs[0, ids.shape[1] :].tolist()
