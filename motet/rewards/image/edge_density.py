"""Edge density: how much of an image is edges. A statistic to watch, or a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from motet.numerics.image_statistics import edge_density
from motet.rewards.base import ModelReward, reward
from motet.rewards.image.pixels import in_batches, scatter_scores, scorable_images, to_pixels
from motet.rewards.info import UNIT, RewardInfo
from motet.rewards.options import check_int, check_number


@reward("edge_density", info=RewardInfo(range=UNIT))
@dataclass(eq=False, kw_only=True)
class EdgeDensity(ModelReward):
    """Share of an image whose luminance changes by more than 0.1 between neighbours (Sobel), in [0, 1].

    With weight 0 it shows textures and empty images that another reward prefers. With a `target` it is 1 - |density -
    target|, the highest at the target. Images are squashed to `side` pixels. `motet.numerics.image_statistics` has the
    formula.
    """

    name: ClassVar[str] = "edge_density"

    target: Any = None
    side: Any = 256

    def __post_init__(self) -> None:
        check_int(self.name, "side", self.side, 3)
        if self.target is not None:
            check_number(self.name, "target", self.target, 0.0, 1.0)

    def __call__(self, completions: list[Any]) -> list[float | None]:
        """One score per completion, from its last image."""
        places, images = scorable_images(completions, [True] * len(completions), self.name)
        cpu = torch.device("cpu")
        found = in_batches(images, 32, lambda some: edge_density(to_pixels(some, self.side, cpu)).tolist())
        values = found if self.target is None else [1 - abs(density - self.target) for density in found]
        return scatter_scores(len(completions), places, values)
