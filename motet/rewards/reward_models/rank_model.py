"""What HPS v3 and EditReward share: a Qwen2-VL whose state at a reward token goes through heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from motet.core.errors import ConfigError
from motet.rewards.reward_models.base import Placement
from motet.rewards.reward_models.heads import RankHead
from motet.rewards.reward_models.qwen_vl import QwenInputs
from motet.rewards.reward_models.templates import REWARD_TOKEN
from motet.rewards.reward_models.weights import build_model, check_names, load_module, read_weights

AREA = 256 * 28 * 28
"""Pixels that every image is resized to, as published."""
EMBEDDINGS = "language_model.embed_tokens.weight"


@dataclass(frozen=True, eq=False)
class RankModel:
    """A Qwen2-VL or Qwen2.5-VL with the published heads, by name."""

    inputs: QwenInputs
    model: Any
    heads: Mapping[str, RankHead]

    @classmethod
    def open(cls, path: str, base: str, heads: Sequence[str], placement: Placement, reward: str) -> RankModel:
        """Load the published weights; `base` has the config, tokenizer and image processor of the model tuned.

        Raises ConfigError naming the option, and the weights that are missing.
        """
        from transformers import Qwen2_5_VLModel, Qwen2VLModel

        key, base_key = (f"rewards.options.{option} of {reward!r}" for option in ("path", "base"))
        inputs = QwenInputs.open(base, key=base_key)
        weights = convert_qwen(read_weights(path, key=key))
        check_names({EMBEDDINGS} - weights.keys(), (), key=key, path=path)
        inputs.tokenizer.add_tokens([REWARD_TOKEN], special_tokens=True)
        token, known = inputs.tokenizer.convert_tokens_to_ids(REWARD_TOKEN), len(weights[EMBEDDINGS])
        if token >= known:
            raise ConfigError(
                f"{key}={path!r} has embeddings of {known} tokens, but the reward token of {base!r} is number {token}.",
                fix="set `base` to the model that was tuned.",
            )
        inputs.config.get_text_config().vocab_size = known
        auto = Qwen2VLModel if inputs.config.model_type == "qwen2_vl" else Qwen2_5_VLModel
        own = {name: value for name, value in weights.items() if not name.startswith(tuple(heads))}
        model = build_model(auto, inputs.config, own, placement, key=key, path=path)
        made = {
            head: load_module(
                RankHead(int(inputs.config.get_text_config().hidden_size)),
                {name.removeprefix(head): value for name, value in weights.items() if name.startswith(head)},
                placement.device,
                key=key,
                path=path,
            )
            for head in heads
        }
        return cls(inputs, model, made)

    @torch.no_grad()
    def score(self, head: str, images: Sequence[Sequence[Image.Image]], texts: Sequence[str]) -> Float[Tensor, "B 2"]:
        """A head's mean and log deviation of each conversation, from the state of its reward token.

        Positions count the tokens one by one, also those of images: the published forward pass gives the language model
        embeddings only, and so does not use Qwen's positions of image rows and columns.
        """
        given = self.inputs.encode(images, texts, self.model.device, area=AREA)
        ids = given["input_ids"]
        positions = torch.arange(ids.shape[1], device=ids.device).expand(3, *ids.shape)
        states = self.model(
            input_ids=ids,
            attention_mask=given["attention_mask"],
            position_ids=positions,
            pixel_values=given["pixel_values"].to(self.model.dtype),
            image_grid_thw=given["image_grid_thw"],
        ).last_hidden_state
        token = self.inputs.tokenizer.convert_tokens_to_ids(REWARD_TOKEN)
        return self.heads[head](states[ids == token])


def convert_qwen(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of Qwen2-VL by the names of transformers' models without a language-model head.

    Both layouts are known: the vision encoder beside `model.`, as transformers wrote it up to 4.51, and inside of it.
    """
    converted: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name.startswith("lm_head."):
            continue
        inner = name.removeprefix("model.")
        if inner != name and not inner.startswith(("language_model.", "visual.")):
            inner = f"language_model.{inner}"
        converted[inner] = value
    return converted
