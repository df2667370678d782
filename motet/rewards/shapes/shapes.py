"""The shapes world's reward: does the decoded image show what the prompt requests?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from motet.rewards.base import ModelReward, reward
from motet.rewards.image.pixels import last_image
from motet.rewards.info import RewardInfo
from motet.rewards.options import check_number


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
        from motet.shapes.verifier import verify_image

        values: list[float | None] = []
        for completion, wanted in zip(completions, spec, strict=True):
            if wanted is None or not completion:
                values.append(None)
                continue
            result = verify_image(last_image(completion, "shapes"), wanted)
            values.append((1.0 - self.partial) * float(result.correct) + self.partial * float(result.partial))
        return values
