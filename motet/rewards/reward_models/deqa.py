"""DeQA-Score's readout: the quality of an image as the expected level among five words."""

from __future__ import annotations

from collections.abc import Sequence
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
from motet.rewards.options import check_non_empty
from motet.rewards.reward_models.base import ImageRewardModel, Placement
from motet.rewards.reward_models.vision_language import VisionLanguageModel

LEVELS = {"excellent": 5.0, "good": 4.0, "fair": 3.0, "poor": 2.0, "bad": 1.0}
QUESTION = "How would you rate the quality of this image?"
OPENING = "The quality of the image is"
"""How the answer begins whose next token is read."""


@reward(
    "deqa",
    info=RewardInfo(
        range="[1, 5]",
        model="a Qwen2-VL or Qwen2.5-VL of yours; not DeQA-Score's weights",
        license="the model's",
        size="the model's",
        runs=DEVICE,
    ),
)
@dataclass(eq=False, kw_only=True)
class DeQA(ImageRewardModel):
    """DeQA-Score's formula on a Qwen2-VL or Qwen2.5-VL: the expected level from excellent (5) to bad (1); in [1, 5].

    You et al. 2025 (arXiv 2501.11561), after Q-Align (arXiv 2312.17090): softmax over the logits of five level words as
    the next token of the answer, times 5, 4, 3, 2, 1. The published weights, zhiyuanyou/DeQA-Score-Mix3, are an
    mPLUG-Owl2, which no class of transformers loads: they need remote code, which motet does not run. So `path` is a
    Qwen2-VL or Qwen2.5-VL (folder or hub id), best one tuned on quality ratings in this format; without that the scores
    are a general model's opinion, not DeQA-Score. The published preprocessing, padding to a square, belongs to
    mPLUG-Owl2 and is not done. UniRL-Zero divides by 5. The prompt plays no part. `question` and `opening` are the
    published ones.
    """

    name: ClassVar[str] = "deqa"
    large: ClassVar[bool] = True

    path: Any = None
    question: Any = QUESTION
    opening: Any = OPENING
    _model: VisionLanguageModel = field(init=False)
    _tokens: list[int] = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_non_empty(self.name, "path", self.path, "path of a Qwen2-VL or Qwen2.5-VL")
        check_non_empty(self.name, "question", self.question, "text")
        check_non_empty(self.name, "opening", self.opening, "text")

    def _load(self, placement: Placement) -> None:
        self._model = VisionLanguageModel.open(self.path, placement, key=self._key("path"))
        tokenizer = self._model.inputs.tokenizer
        self._tokens = [tokenizer(f" {level}", add_special_tokens=False)["input_ids"][0] for level in LEVELS]
        if len(set(self._tokens)) < len(LEVELS):
            raise ConfigError(
                f"{self._key('path')}={self.path!r} has a tokenizer for which two of the words {', '.join(LEVELS)} "
                "begin with the same token.",
                fix="give a model whose tokenizer tells them apart.",
            )

    def _score(self, images: Sequence[Image.Image]) -> Float[Tensor, "B"]:
        def expected(batch: Sequence[Image.Image]) -> Float[Tensor, "B"]:
            logits = self._model.next_logits(batch, self.question, self.opening)[:, self._tokens]
            return logits.softmax(dim=-1) @ torch.tensor(list(LEVELS.values()), device=logits.device)

        return torch.stack(in_batches(images, self.batch_size, expected))
