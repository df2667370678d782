"""LAION's aesthetic predictor: how beautiful people find an image."""

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
from motet.rewards.options import check_non_empty
from motet.rewards.reward_models.base import ImageRewardModel, Placement
from motet.rewards.reward_models.heads import LinearHead
from motet.rewards.reward_models.weights import load_module, read_weights


@reward(
    "aesthetic",
    info=RewardInfo(
        range="unbounded; about 1 to 10",
        model="openai/clip-vit-large-patch14 and a head",
        license="head's code Apache-2.0; weights unverified",
        size="0.3 billion parameters",
        runs=DEVICE,
    ),
)
@dataclass(eq=False, kw_only=True)
class Aesthetic(ImageRewardModel):
    """LAION's aesthetic predictor v2: five linear layers on CLIP ViT-L/14's image embedding of length 1; about 1 to 10.

    The "improved aesthetic predictor" (Schuhmann 2022), trained on ratings from 1 to 10; DDPO (arXiv 2305.13301) and
    UniRL-Zero use its raw value. The prompt plays no part. `path` is a folder or hub id of a transformers CLIPModel,
    `head` the file of the published linear layers (`sac+logos+ava1-l14-linearMSE.pth` of
    christophschuhmann/improved-aesthetic-predictor on GitHub), or `OWNER/NAME/FILE` on the hub.
    """

    name: ClassVar[str] = "aesthetic"

    path: Any = "openai/clip-vit-large-patch14"
    head: Any = None
    _clip: Clip = field(init=False)
    _head: Any = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_non_empty(self.name, "path", self.path, "path of a CLIP model")
        check_non_empty(self.name, "head", self.head, "file of the aesthetic predictor's layers")

    def _load(self, placement: Placement) -> None:
        self._clip = Clip.open(
            self.path, placement.device, key=self._key("path"), batch_size=self.batch_size, dtype=placement.dtype
        )
        key = self._key("head")
        weights = read_weights(self.head, key=key)
        features = int(self._clip.model.config.projection_dim)
        self._head = load_module(LinearHead(features), weights, placement.device, key=key, path=self.head)

    def _score(self, images: Sequence[Image.Image]) -> Float[Tensor, "B"]:
        return self._head(self._clip.images(images))
