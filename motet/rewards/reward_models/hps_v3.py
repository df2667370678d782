"""HPS v3: how much people prefer an image for a prompt, by a vision-language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from motet.rewards.base import reward
from motet.rewards.image.pixels import in_batches
from motet.rewards.info import DEVICE, RewardInfo
from motet.rewards.options import check_non_empty
from motet.rewards.reward_models.base import Placement, PromptedRewardModel
from motet.rewards.reward_models.rank_model import RankModel
from motet.rewards.reward_models.templates import check_prompt, fill_template, read_template
from motet.rewards.text.multiple_choice import text_of_question

HEAD = "rm_head."


@reward(
    "hps_v3",
    info=RewardInfo(
        range="unbounded; higher is better",
        model="MizzenAI/HPSv3",
        license="code MIT; weights unverified",
        size="8 billion parameters",
        runs=DEVICE,
    ),
)
@dataclass(eq=False, kw_only=True)
class HPSv3(PromptedRewardModel):
    """HPS v3: the mean that a Qwen2-VL-7B with a head of three layers predicts for an image and its prompt; unbounded.

    Ma et al. 2025 (HPSv3). The head predicts mean and deviation of a preference; the mean is the score, as in the
    published code, without normalisation. `path` is the published file, or `OWNER/NAME/FILE` on the hub; `base` is the
    model that was tuned, of which only config, tokenizer and image processor are used. `template` is a text file with
    the published prompt, word for word: docs/how-to/reward-models.md says how to write it. As published, every image is
    resized to 256 x 28 x 28 pixels and positions count tokens one by one.
    """

    name: ClassVar[str] = "hps_v3"
    large: ClassVar[bool] = True

    path: Any = "MizzenAI/HPSv3/HPSv3.safetensors"
    base: Any = "Qwen/Qwen2-VL-7B-Instruct"
    template: Any = None
    _template: str = field(init=False)
    _model: RankModel = field(init=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_non_empty(self.name, "path", self.path, "file of HPS v3's weights")
        check_non_empty(self.name, "base", self.base, "path of a Qwen2-VL")
        self._template = read_template(self.name, "template", self.template)

    def check_row(self, row: Mapping[str, Any]) -> None:
        if row.get("prompt") is not None:
            check_prompt(self.name, "prompt", text_of_question(row["prompt"]))

    def _load(self, placement: Placement) -> None:
        self._model = RankModel.open(self.path, self.base, [HEAD], placement, self.name)

    def _score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> Float[Tensor, "B"]:
        texts = [fill_template(self._template, prompt) for prompt in prompts]

        def means(pairs: Sequence[tuple[Image.Image, str]]) -> Float[Tensor, "B"]:
            return self._model.score(HEAD, [[image] for image, _ in pairs], [text for _, text in pairs])[:, 0]

        return torch.stack(in_batches(list(zip(images, texts, strict=True)), self.batch_size, means))
