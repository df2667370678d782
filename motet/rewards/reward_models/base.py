"""What the rewards with a published model share: their options, their placement, and how completions become scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from motet.core.protocols import Policy
from motet.rewards.base import ModelReward
from motet.rewards.image.pixels import scatter_scores, scorable_images
from motet.rewards.models import device_of
from motet.rewards.options import check_choice, check_int, check_non_empty, raise_option_error
from motet.rewards.text.multiple_choice import text_of_question

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Placement(NamedTuple):
    """Where a model's weights are, and in which dtype."""

    device: torch.device
    dtype: torch.dtype


@dataclass(eq=False, kw_only=True)
class RewardModel(ModelReward):
    """A reward by a published model, which `prepare` loads.

    `batch_size` images are scored at a time. `dtype` is `float32`, `bfloat16` or `auto`: the dtype of the published
    code, which for models of several billion parameters is bfloat16 (on a CPU: float32). `device` is `auto` (the
    policy's) or a torch device such as `cuda:1`. Scores are computed in float32 from the model's outputs.
    """

    name: ClassVar[str] = ""
    large: ClassVar[bool] = False
    """Whether `dtype: auto` is bfloat16 on an accelerator."""

    batch_size: Any = 16
    dtype: Any = "auto"
    device: Any = "auto"

    def __post_init__(self) -> None:
        check_int(self.name, "batch_size", self.batch_size)
        check_choice(self.name, "dtype", self.dtype, ("auto", *DTYPES))
        check_non_empty(self.name, "device", self.device, "device, or auto")
        if self.device != "auto":
            try:
                torch.device(self.device)
            except RuntimeError:
                raise_option_error(
                    self.name, "device", self.device, "is not a torch device", fix="write auto or cuda:0."
                )

    def prepare(self, policy: Policy) -> None:
        self._load(self._placement(policy))

    def _key(self, option: str) -> str:
        """How messages name an option."""
        return f"rewards.options.{option} of {self.name!r}"

    def _placement(self, policy: Policy) -> Placement:
        """Raises ConfigError when this machine does not have the device."""
        device = device_of(policy) if self.device == "auto" else torch.device(self.device)
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError):  # a torch built without CUDA asserts
            raise_option_error(self.name, "device", self.device, "is not on this machine", fix="write auto or cpu.")
        if self.dtype != "auto":
            return Placement(device, DTYPES[self.dtype])
        return Placement(device, torch.bfloat16 if self.large and device.type != "cpu" else torch.float32)

    def _load(self, placement: Placement) -> None:
        """Load what `_score` needs. Raises ConfigError."""
        raise NotImplementedError


@dataclass(eq=False, kw_only=True)
class PromptedRewardModel(RewardModel):
    """A reward model of an image and the row's prompt; a row without a prompt gets None."""

    def __call__(self, completions: list[Any], prompt: list[Any]) -> list[float | None]:
        """One score per completion, from its last image."""
        places, images = scorable_images(completions, [asked is not None for asked in prompt], self.name)
        if not places:
            return scatter_scores(len(completions), [], [])
        scores = self._score(images, [text_of_question(prompt[place]) for place in places])
        return scatter_scores(len(completions), places, scores.tolist())

    def _score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Float[Tensor, "B"]:
        raise NotImplementedError


@dataclass(eq=False, kw_only=True)
class ImageRewardModel(RewardModel):
    """A reward model of an image alone."""

    def __call__(self, completions: list[Any]) -> list[float | None]:
        """One score per completion, from its last image."""
        places, images = scorable_images(completions, [True] * len(completions), self.name)
        if not places:
            return scatter_scores(len(completions), [], [])
        return scatter_scores(len(completions), places, self._score(images).tolist())

    def _score(self, images: Sequence[Image.Image]) -> Float[Tensor, "B"]:
        raise NotImplementedError
