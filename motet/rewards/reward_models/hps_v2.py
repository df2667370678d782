"""HPS v2 and v2.1: how much people prefer an image for a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from jaxtyping import Float
from PIL import Image
from torch import Tensor

from motet.rewards.base import reward
from motet.rewards.image.clip import Clip
from motet.rewards.info import DEVICE, RewardInfo
from motet.rewards.models import load_processor
from motet.rewards.options import check_non_empty
from motet.rewards.reward_models.base import Placement, PromptedRewardModel
from motet.rewards.reward_models.open_clip import convert_open_clip
from motet.rewards.reward_models.pick_score import CLIP_H
from motet.rewards.reward_models.preprocessing import padded_pixels
from motet.rewards.reward_models.weights import build_model, read_weights


@reward(
    "hps_v2",
    info=RewardInfo(
        range="[-1, 1]; about 0.15 to 0.35",
        model="xswu/HPSv2",
        license="code Apache-2.0; weights unverified",
        size="1.0 billion parameters",
        runs=DEVICE,
    ),
)
@dataclass(eq=False, kw_only=True)
class HPSv2(PromptedRewardModel):
    """HPS v2.1: cosine of a CLIP ViT-H/14 tuned on 798,000 human choices; in [-1, 1], about 0.15 to 0.35.

    Wu et al. 2023 (arXiv 2306.09341). The score of the published code is the cosine; its tables show it x 100, and
    UniRL-Zero weights it by 2. `path` is the published file, or `OWNER/NAME/FILE` on the hub: a state dict in
    open_clip's layout (`HPS_v2_compressed.pt` is v2.0); `base` is a transformers CLIPModel of the same architecture,
    whose config and tokenizer are used. As published, an image is scaled until its longer side fits (bicubic,
    antialiased) and padded with black to a square, and longer prompts are truncated to 77 tokens. The published
    tokenizer also repairs mojibake and HTML entities in prompts; that is not done.
    """

    name: ClassVar[str] = "hps_v2"

    path: Any = "xswu/HPSv2/HPS_v2.1_compressed.pt"
    base: Any = CLIP_H
    _clip: Clip = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_non_empty(self.name, "path", self.path, "file of HPS v2's weights")
        check_non_empty(self.name, "base", self.base, "path of a CLIP model")

    def _load(self, placement: Placement) -> None:
        from transformers import AutoTokenizer, CLIPConfig, CLIPModel

        key = self._key("path")
        config = load_processor(CLIPConfig, self.base, key=self._key("base"))
        tokenizer = load_processor(AutoTokenizer, self.base, key=self._key("base"))
        weights = convert_open_clip(read_weights(self.path, key=key), key=key, path=self.path)
        model = build_model(CLIPModel, config, weights, placement, key=key, path=self.path)
        side = int(config.vision_config.image_size)
        self._clip = Clip(model, tokenizer, partial(padded_pixels, side=side), self.batch_size)

    def _score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Float[Tensor, "B"]:
        return (self._clip.images(images) * self._clip.texts(prompts)).sum(dim=-1)
