"""The reward `perceptual_similarity`: how alike two images look to the deep layers of a vision network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from motet.core.protocols import Policy
from motet.rewards.base import reward
from motet.rewards.image.pairwise import ImagePairReward
from motet.rewards.image.pixels import scatter_scores
from motet.rewards.image.similarity import EFFICIENTNET, ImageSimilarity, check_visual, open_distance
from motet.rewards.info import DEVICE, UNIT, RewardInfo
from motet.rewards.models import device_of
from motet.rewards.options import check_int, check_non_empty


@reward(
    "perceptual_similarity",
    info=RewardInfo(
        range=UNIT,
        model="EfficientNet-lite0 (ImageNet), or any vision backbone of transformers",
        license="Apache-2.0",
        size="4.7 M parameters, 19 MB, in the package",
        runs=DEVICE,
        extra="perceptual",
    ),
)
@dataclass(eq=False, kw_only=True)
class PerceptualSimilarity(ImagePairReward):
    """1 - distance of two images in a network's features, at least 0; equal images get 1.

    The distance is LPIPS' formula (Zhang et al. 2018, arXiv 1801.03924, equation 1) without its trained linear weights:
    features of unit length over channels, squared differences, halved and averaged over places and layers, which is
    the mean of 1 - cosine. It is not calibrated to human judgements; `backbone_weights` are linear weights of your own.

    `backbone` is EfficientNet-lite0, with the package's ImageNet weights and its layers at 1/8, 1/16 and 1/32 of the
    resolution, or the path of a vision backbone. Images are squashed to `side` pixels. `act`, `column` and `to` select
    the two images, as in `motet.rewards.image.pairwise`.
    """

    name: ClassVar[str] = "perceptual_similarity"

    backbone: Any = EFFICIENTNET
    backbone_weights: Any = None
    side: Any = 224
    batch_size: Any = 32
    _similarity: ImageSimilarity = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_non_empty(self.name, "backbone", self.backbone, "path of a vision backbone")
        check_int(self.name, "batch_size", self.batch_size)
        check_visual(self.name, "lpips", self.backbone, self.backbone_weights, self.side)

    def prepare(self, policy: Policy) -> None:
        device = device_of(policy)
        distance = open_distance(self.name, "lpips", self.backbone, self.backbone_weights, device)
        self._similarity = ImageSimilarity(distance, self.side, self.batch_size, device)

    def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
        """One score per completion."""
        places, pairs = self.pairs(completions, columns)
        others, generated = [other for _, other in pairs], [image for image, _ in pairs]
        return scatter_scores(len(completions), places, self._similarity(others, generated))
