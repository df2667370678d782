"""A reward that says nothing about what was generated: the control of a claim about a reward."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, ClassVar

from PIL import Image

from motet.rewards.base import ModelReward, reward
from motet.rewards.info import RewardInfo
from motet.rewards.options import check_int, check_number


@reward("random", info=RewardInfo(range="0 or 1"))
@dataclass(eq=False, kw_only=True)
class RandomReward(ModelReward):
    """1 with the probability `rate`, else 0: training on it is optimisation without a signal.

    What a policy gains from it, it would have gained from any reward (Shao et al., Spurious Rewards, arXiv 2506.10947).
    The value is a hash of the prompt, the completion and `seed`, so that a resumed run gets the same ones.
    """

    name: ClassVar[str] = "random"

    rate: Any = 0.5
    seed: Any = 0

    def __post_init__(self) -> None:
        check_number(self.name, "rate", self.rate, 0.0, 1.0)
        check_int(self.name, "seed", self.seed, 0)

    def __call__(self, prompts: list[Any], completions: list[Any]) -> list[float | None]:
        """One value per completion; None for an empty one."""
        pairs = zip(prompts, completions, strict=True)
        return [float(self._uniform(pair) < self.rate) if pair[1] else None for pair in pairs]

    def _uniform(self, pair: tuple[Any, Any]) -> float:
        """A number in [0, 1) that depends on everything in the two chats."""
        text = json.dumps([self.seed, pair], sort_keys=True, default=_fingerprint)
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) / 2**32


def _fingerprint(value: Any) -> str:
    """The pixels of an image as text."""
    if isinstance(value, Image.Image):
        return hashlib.blake2b(value.tobytes(), digest_size=16).hexdigest()
    return repr(value)
