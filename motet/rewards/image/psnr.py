"""Peak signal-to-noise ratio of a generated image and another image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from motet.rewards.base import reward
from motet.rewards.image.pairwise import ImagePairReward
from motet.rewards.image.pixels import scatter_scores
from motet.rewards.info import RewardInfo
from motet.rewards.options import check_number


@reward("psnr", info=RewardInfo(range="decibels, 0 to `cap`"))
@dataclass(eq=False, kw_only=True)
class Psnr(ImagePairReward):
    """Peak signal-to-noise ratio in decibels: 10 log10(255^2 / MSE), at most `cap`.

    UniRL-Zero's `recon`. Equal images get `cap`. `act`, `column` and `to` select the two images, as in
    `motet.rewards.image.pairwise`. An image of another size is resized to the other image's
    (bilinear).
    """

    name: ClassVar[str] = "psnr"

    cap: Any = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.name, "cap", self.cap)

    def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
        """One score per completion."""
        places, pairs = self.pairs(completions, columns)
        return scatter_scores(len(completions), places, [min(psnr(*pair), float(self.cap)) for pair in pairs])


def psnr(generated: Image.Image, other: Image.Image) -> float:
    """10 log10(255^2 / mean squared difference of 8-bit RGB); infinite for equal images."""
    if generated.size != other.size:
        generated = generated.resize(other.size, Image.Resampling.BILINEAR)
    first, second = (np.asarray(image.convert("RGB"), np.float64) for image in (generated, other))
    error = float(((first - second) ** 2).mean())
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)
