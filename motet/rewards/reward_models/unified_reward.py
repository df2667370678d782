"""UnifiedReward: a vision-language model that writes scores of an image for a prompt."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from motet.core.errors import ConfigError
from motet.core.protocols import Policy
from motet.rewards.base import reward
from motet.rewards.image.pixels import in_batches
from motet.rewards.info import RewardInfo
from motet.rewards.judge.endpoint import ask, read_endpoint
from motet.rewards.options import check_choice, check_int, check_non_empty
from motet.rewards.reward_models.base import Placement, PromptedRewardModel
from motet.rewards.reward_models.templates import PROMPT, check_prompt, fill_template, read_template
from motet.rewards.reward_models.vision_language import VisionLanguageModel
from motet.rewards.text.multiple_choice import text_of_question

NUMBER = r"[\s*]*([0-9]+(?:\.[0-9]+)?)"
LABELS = {
    "final": r"Final Score:",
    "alignment": r"Alignment Score \(1-5\):",
    "coherence": r"Coherence Score \(1-5\):",
    "style": r"Style Score \(1-5\):",
}
"""What the models write before a number: `final` in the first releases, the others in those that score three axes."""
BEST = 5.0


@reward(
    "unified_reward",
    info=RewardInfo(
        range="[0, 1]",
        model="CodeGoat24's UnifiedReward, on Qwen2.5-VL",
        license="code MIT; weights unverified",
        size="3 to 73 billion parameters",
        runs="policy's device, or endpoint",
    ),
)
@dataclass(eq=False, kw_only=True)
class UnifiedReward(PromptedRewardModel):
    """UnifiedReward: the score from 1 to 5 that a vision-language model writes for an image and its prompt, / 5.

    Wang et al. 2025 (arXiv 2503.05236). The last number after the label of `axis` in a greedy answer is the score:
    `final` (`Final Score:`), or `alignment`, `coherence` or `style` of the models that score these axes. UniRL-Zero
    uses the first. An answer without a number, or with one beyond 5, and one that did not come, is NaN: it drops the
    trajectory. The model is loaded from `path`, a folder or hub id of a Qwen2.5-VL (CodeGoat24/UnifiedReward-qwen-7b
    and the 2.0 series), or asked at an `endpoint` (`motet.rewards.judge.endpoint`), where a server runs it: for the
    LLaVA-OneVision models, whose layout transformers does not load, and for Qwen3-VL. `template` is a text file with
    the published prompt, word for word: docs/how-to/reward-models.md says how to write it. `max_tokens` is the most of
    an answer.
    """

    name: ClassVar[str] = "unified_reward"
    large: ClassVar[bool] = True

    path: Any = None
    endpoint: Any = None
    template: Any = None
    axis: Any = "final"
    max_tokens: Any = 512
    _template: str = field(init=False)
    _model: VisionLanguageModel | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int(self.name, "max_tokens", self.max_tokens)
        if (self.path is None) == (self.endpoint is None):
            raise ConfigError(
                "rewards.options of 'unified_reward' must have either path or endpoint.",
                fix="give the path of a Qwen2.5-VL, or an endpoint that serves the model.",
            )
        if self.path is not None:
            check_non_empty(self.name, "path", self.path, "path of a Qwen2.5-VL")
        else:
            self.endpoint = replace(read_endpoint(self.name, self.endpoint), max_tokens=self.max_tokens)
        check_choice(self.name, "axis", self.axis, tuple(LABELS))
        self._template = read_template(self.name, "template", self.template, (PROMPT,))

    def prepare(self, policy: Policy) -> None:
        if self.path is not None:
            super().prepare(policy)

    def check_row(self, row: Mapping[str, Any]) -> None:
        if row.get("prompt") is not None:
            check_prompt(self.name, "prompt", text_of_question(row["prompt"]))

    def _load(self, placement: Placement) -> None:
        self._model = VisionLanguageModel.open(self.path, placement, key=self._key("path"))

    def _score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Float[Tensor, "B"]:
        questions = [fill_template(self._template, prompt) for prompt in prompts]
        return torch.tensor([parse_score(reply, self.axis) / BEST for reply in self._ask(images, questions)])

    def _ask(self, images: Sequence[Image.Image], questions: Sequence[str]) -> Sequence[str | None]:
        model = self._model
        if model is None:
            return ask(self.endpoint, images, questions, self.name)

        def answers(batch: Sequence[tuple[Image.Image, str]]) -> list[str]:
            return model.generate([image for image, _ in batch], [text for _, text in batch], self.max_tokens)

        return in_batches(list(zip(images, questions, strict=True)), self.batch_size, answers)


def parse_score(reply: str | None, axis: str) -> float:
    """The last number from 0 to 5 after the label of an axis; NaN where there is none, or another one."""
    found = re.findall(LABELS[axis] + NUMBER, reply or "", flags=re.IGNORECASE)
    value = float(found[-1]) if found else math.nan
    return value if value <= BEST else math.nan
