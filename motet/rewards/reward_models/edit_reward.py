"""EditReward: how well an edit follows its instruction, and how good it looks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from motet.rewards.base import reward
from motet.rewards.image.pairwise import ImagePairReward, Pair
from motet.rewards.image.pixels import in_batches, scatter_scores
from motet.rewards.info import DEVICE, RewardInfo
from motet.rewards.options import check_choice, check_non_empty
from motet.rewards.reward_models.base import Placement, RewardModel
from motet.rewards.reward_models.rank_model import RankModel
from motet.rewards.reward_models.templates import check_prompt, fill_template, read_template
from motet.rewards.text.multiple_choice import text_of_question

HEADS = {"following": "rm_heads.head_0.", "quality": "rm_heads.head_1."}
SCORES = ("mean", *HEADS)


@reward(
    "edit_reward",
    info=RewardInfo(
        range="unbounded; higher is better",
        model="TIGER-Lab's EditReward, on Qwen2.5-VL-7B or MiMo-VL-7B",
        license="code MIT; weights unverified",
        size="8 billion parameters",
        runs=DEVICE,
    ),
)
@dataclass(eq=False, kw_only=True)
class EditReward(ImagePairReward, RewardModel):
    """EditReward: the mean of two heads of a Qwen2.5-VL-7B, on following the instruction and on quality; unbounded.

    Wu et al. 2025 (arXiv 2509.26346), trained on 200,000 human preferences. Each head predicts mean and deviation of a
    score for its own prompt, which shows the source, the edit and the instruction (the column `instruction`); `score`
    is `mean` (of both heads' means, as the published configurations pool), `following` or `quality`. UniRL-Zero's and
    PromptRL's services use the first output. `path` is the published file (or `OWNER/NAME/FILE`), `base` the model that
    was tuned: Qwen/Qwen2.5-VL-7B-Instruct or XiaomiMiMo/MiMo-VL-7B-SFT-2508. `following` and `quality` are text files
    with the published prompts, word for word (docs/how-to/reward-models.md). `act`, `column` and `to` select the edit
    and its source, as in `motet.rewards.image.pairwise`. As published, images are resized to 256 x 28 x 28 pixels.
    """

    name: ClassVar[str] = "edit_reward"
    large: ClassVar[bool] = True

    path: Any = None
    base: Any = "Qwen/Qwen2.5-VL-7B-Instruct"
    following: Any = None
    quality: Any = None
    score: Any = "mean"
    _templates: Mapping[str, str] = field(init=False)
    _model: RankModel = field(init=False)

    def __post_init__(self) -> None:
        ImagePairReward.__post_init__(self)
        RewardModel.__post_init__(self)
        check_non_empty(self.name, "path", self.path, "file of EditReward's weights")
        check_non_empty(self.name, "base", self.base, "path of a Qwen2.5-VL")
        check_choice(self.name, "score", self.score, SCORES)
        used = HEADS if self.score == "mean" else (self.score,)
        self._templates = {head: read_template(self.name, head, getattr(self, head)) for head in used}

    def check_row(self, row: Mapping[str, Any]) -> None:
        if row.get("instruction") is not None:
            check_prompt(self.name, "instruction", text_of_question(row["instruction"]))

    def _load(self, placement: Placement) -> None:
        self._model = RankModel.open(self.path, self.base, list(HEADS.values()), placement, self.name)

    def __call__(self, completions: list[Any], instruction: list[Any], **columns: Any) -> list[float | None]:
        """One score per completion; None for a row without an instruction or a source."""
        kept = [c if told is not None else [] for c, told in zip(completions, instruction, strict=True)]
        places, pairs = self.pairs(kept, columns)
        if not places:
            return scatter_scores(len(completions), [], [])
        told = [text_of_question(instruction[place]) for place in places]
        scores = [self._score_head(head, template, pairs, told) for head, template in self._templates.items()]
        return scatter_scores(len(completions), places, torch.stack(scores).mean(dim=0).tolist())

    def _score_head(self, head: str, template: str, pairs: Sequence[Pair], told: Sequence[str]) -> Float[Tensor, "B"]:
        rows = [
            ([source, edit], fill_template(template, text)) for (edit, source), text in zip(pairs, told, strict=True)
        ]

        def means(rows: Sequence[tuple[list[Image.Image], str]]) -> Float[Tensor, "B"]:
            return self._model.score(HEADS[head], [images for images, _ in rows], [text for _, text in rows])[:, 0]

        return torch.stack(in_batches(rows, self.batch_size, means))
