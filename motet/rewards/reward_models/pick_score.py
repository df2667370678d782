"""PickScore: how much people prefer an image for a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from motet.rewards.base import reward
from motet.rewards.image.clip import Clip
from motet.rewards.info import DEVICE, RewardInfo
from motet.rewards.models import load_model, load_processor
from motet.rewards.options import check_non_empty
from motet.rewards.reward_models.base import Placement, PromptedRewardModel

CLIP_H = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"


@reward(
    "pick_score",
    info=RewardInfo(
        range="logit scale x [-1, 1]; about 15 to 25",
        model="yuvalkirstain/PickScore_v1",
        license="code MIT; weights unverified",
        size="1.0 billion parameters",
        runs=DEVICE,
    ),
)
@dataclass(eq=False, kw_only=True)
class PickScore(PromptedRewardModel):
    """PickScore: exp(logit scale) x cosine of a CLIP ViT-H/14 tuned on half a million human choices; about 15 to 25.

    Kirstain et al. 2023 (arXiv 2305.01569); the formula is that of the inference code in its README, without the
    softmax over candidates. Flow-GRPO and UniRL-Zero divide by 26: set the reward's weight. `path` is a folder or hub
    id of a transformers CLIPModel, `processor` that of its tokenizer and image processor, which are those of the CLIP
    that was tuned. Prompts longer than 77 tokens are truncated, as published.
    """

    name: ClassVar[str] = "pick_score"

    path: Any = "yuvalkirstain/PickScore_v1"
    processor: Any = CLIP_H
    _clip: Clip = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_non_empty(self.name, "path", self.path, "path of a CLIP model")
        check_non_empty(self.name, "processor", self.processor, "path of CLIP's tokenizer and image processor")

    def _load(self, placement: Placement) -> None:
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

        key = self._key("processor")
        self._clip = Clip(
            load_model(CLIPModel, self.path, placement.device, key=self._key("path"), dtype=placement.dtype),
            load_processor(AutoTokenizer, self.processor, key=key),
            load_processor(AutoImageProcessor, self.processor, key=key),
            self.batch_size,
        )

    def _score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Float[Tensor, "B"]:
        cosines = (self._clip.images(images) * self._clip.texts(prompts)).sum(dim=-1)
        return self._clip.model.logit_scale.float().exp() * cosines
