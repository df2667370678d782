"""The shapes world's reward: does the decoded image show what the prompt requests?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from motet.rewards.base import ModelReward, reward
from motet.rewards.image.pixels import scatter_scores, scorable_images
from motet.rewards.info import RewardInfo
from motet.rewards.options import check_number
from motet.shapes.verifier import verify_images


@reward("shapes", info=RewardInfo(range="0 or 1; with partial [0, 1]"))
@dataclass(eq=False, kw_only=True)
class Shapes(ModelReward):
    """Whether the last image shows exactly what its `spec` requests, by the shapes world's verifier.

    1 or 0; with `partial` p in [0, 1] it is `(1 - p) * correct + p * partial score`.
    """

    partial: Any = 0.0

    def __post_init__(self) -> None:
        check_number("shapes", "partial", self.partial, 0.0, 1.0)

    def __call__(self, completions: list[Any], spec: list[Mapping[str, Any] | None], **_: Any) -> list[float | None]:
        """One score per completion; None for rows without a spec."""
        scored, images = scorable_images(completions, [wanted is not None for wanted in spec], "shapes")
        results = verify_images(images, [wanted for n in scored if (wanted := spec[n]) is not None])
        values = [(1.0 - self.partial) * float(r.correct) + self.partial * float(r.partial) for r in results]
        return scatter_scores(len(completions), scored, values)
