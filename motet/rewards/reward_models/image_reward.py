"""ImageReward: how much people prefer an image for a prompt, by BLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from motet.core.errors import ConfigError
from motet.rewards.base import reward
from motet.rewards.image.pixels import in_batches
from motet.rewards.info import DEVICE, RewardInfo
from motet.rewards.models import load_processor
from motet.rewards.options import check_non_empty
from motet.rewards.reward_models.base import Placement, PromptedRewardModel
from motet.rewards.reward_models.heads import LinearHead
from motet.rewards.reward_models.preprocessing import cropped_pixels
from motet.rewards.reward_models.weights import build_model, check_names, load_module, read_weights

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the raw scores, as published: standardised scores have mean 0 and deviation 1 on the authors' data."""
LONGEST = 35
"""Tokens of a prompt, as published; longer ones are truncated."""
HEAD_WIDTH = 64
"""Features of one attention head, in the image encoder and in the text encoder."""
VISION = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding",
    "patch_embed.proj": "embeddings.patch_embedding",
    "norm": "post_layernorm",
}
"""The published image encoder's names outside of its blocks -> transformers'."""
BLOCK = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.qkv": "self_attn.qkv",
    "attn.proj": "self_attn.projection",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
UNUSED = ("vision_proj.", "text_proj.", "itm_head.")
"""BLIP's other heads, which the score does not need."""


@reward(
    "image_reward",
    info=RewardInfo(
        range="unbounded; mean 0, deviation 1 on the authors' data",
        model="THUDM/ImageReward",
        license="code Apache-2.0; weights unverified",
        size="0.4 billion parameters",
        runs=DEVICE,
    ),
)
@dataclass(eq=False, kw_only=True)
class ImageReward(PromptedRewardModel):
    """ImageReward v1.0: BLIP's text encoder attends to the image, a head scores its first state; mean 0, deviation 1.

    Xu et al. 2023 (arXiv 2304.05977), from 137,000 expert comparisons. The raw score is standardised with the published
    mean 0.16717 and deviation 1.03334; most scores are between -2 and 2. `path` is the published file, or
    `OWNER/NAME/FILE` on the hub; the sizes of BLIP's encoders are those of its weights. `tokenizer` is BERT's uncased
    one. As published, an image is scaled and cropped to a square, and prompts are truncated to 35 tokens.
    """

    name: ClassVar[str] = "image_reward"

    path: Any = "THUDM/ImageReward/ImageReward.pt"
    tokenizer: Any = "google-bert/bert-base-uncased"
    _blip: Any = field(init=False)
    _head: Any = field(init=False)
    _tokenizer: Any = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_non_empty(self.name, "path", self.path, "file of ImageReward's weights")
        check_non_empty(self.name, "tokenizer", self.tokenizer, "path of BERT's tokenizer")

    def _load(self, placement: Placement) -> None:
        from transformers import AutoTokenizer, BlipForImageTextRetrieval

        key = self._key("path")
        self._tokenizer = load_processor(AutoTokenizer, self.tokenizer, key=self._key("tokenizer"))
        weights = read_weights(self.path, key=key)
        blip = convert_blip(weights, key=key, path=self.path)
        config = blip_config(blip, key=key, path=self.path)
        self._blip = build_model(
            BlipForImageTextRetrieval, config, blip, placement, key=key, path=self.path, unused=UNUSED
        )
        head = {name.removeprefix("mlp."): value for name, value in weights.items() if name.startswith("mlp.")}
        features = int(self._blip.config.text_config.hidden_size)
        self._head = load_module(LinearHead(features), head, placement.device, key=key, path=self.path)

    def _score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Float[Tensor, "B"]:
        pairs = list(zip(images, prompts, strict=True))
        return torch.stack(in_batches(pairs, self.batch_size, self._score_batch))

    @torch.no_grad()
    def _score_batch(self, pairs: Sequence[tuple[Image.Image, str]]) -> Float[Tensor, "B"]:
        device, dtype = self._blip.device, self._blip.dtype
        side = int(self._blip.config.vision_config.image_size)
        pixels = cropped_pixels([image for image, _ in pairs], side).to(device, dtype)
        seen = self._blip.vision_model(pixel_values=pixels).last_hidden_state
        texts = self._tokenizer(
            [text for _, text in pairs], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
        ).to(device)
        states = self._blip.text_encoder(
            input_ids=texts["input_ids"],
            attention_mask=texts["attention_mask"],
            encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2], dtype=torch.long, device=device),
        )
        return (self._head(states.last_hidden_state[:, 0]) - MEAN) / STD


def convert_blip(weights: Mapping[str, Tensor], *, key: str, path: str) -> dict[str, Tensor]:
    """The weights of BLIP's encoders by the names of transformers' BlipForImageTextRetrieval.

    Raises ConfigError for a name that the published checkpoint does not have.
    """
    converted: dict[str, Tensor] = {}
    for name, value in weights.items():
        own = name.removeprefix("blip.")
        if name.startswith("mlp.") or own.startswith(UNUSED) or own == "text_encoder.embeddings.position_ids":
            continue
        renamed = own if own.startswith("text_encoder.") else _rename_vision(own)
        if renamed is None:
            raise ConfigError(
                f"{key}={path!r} holds a weight {name!r}, which ImageReward does not have.",
                fix="give the file ImageReward.pt.",
            )
        converted[renamed] = value
    return converted


def _rename_vision(name: str) -> str | None:
    part = name.removeprefix("visual_encoder.")
    if part == name:
        return None
    for own, theirs in VISION.items():
        if part == own or part.rpartition(".")[0] == own:
            return f"vision_model.{theirs}{part.removeprefix(own)}"
    number, _, part = part.removeprefix("blocks.").partition(".")
    module, _, kind = part.rpartition(".")
    return f"vision_model.encoder.layers.{number}.{BLOCK[module]}.{kind}" if module in BLOCK else None


def blip_config(weights: Mapping[str, Tensor], *, key: str, path: str) -> Any:
    """The BlipConfig of weights by transformers' names: BLIP's own settings, sizes by the shapes of the weights.

    Raises ConfigError when a weight is missing whose shape is needed.
    """
    from transformers import BlipConfig

    def shape(name: str) -> tuple[int, ...]:
        check_names({name} - weights.keys(), (), key=key, path=path)
        return tuple(weights[name].shape)

    def layers(prefix: str) -> int:
        return len({name.removeprefix(prefix).partition(".")[0] for name in weights if name.startswith(prefix)})

    wide, _, patch, _ = shape("vision_model.embeddings.patch_embedding.weight")
    tokens = shape("vision_model.embeddings.position_embedding")[1] - 1
    vocabulary, text = shape("text_encoder.embeddings.word_embeddings.weight")[:2]
    vision_config = {
        "hidden_size": wide,
        "intermediate_size": shape("vision_model.encoder.layers.0.mlp.fc1.weight")[0],
        "num_hidden_layers": layers("vision_model.encoder.layers."),
        "num_attention_heads": wide // HEAD_WIDTH,
        "image_size": round(tokens**0.5) * patch,
        "patch_size": patch,
        "layer_norm_eps": 1e-6,
    }
    text_config = {
        "vocab_size": vocabulary,
        "hidden_size": text,
        "encoder_hidden_size": wide,
        "intermediate_size": shape("text_encoder.encoder.layer.0.intermediate.dense.weight")[0],
        "num_hidden_layers": layers("text_encoder.encoder.layer."),
        "num_attention_heads": text // HEAD_WIDTH,
        "max_position_embeddings": shape("text_encoder.embeddings.position_embeddings.weight")[0],
        "hidden_act": "gelu",
        "bos_token_id": 0,
        "sep_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    return BlipConfig(vision_config=vision_config, text_config=text_config)
