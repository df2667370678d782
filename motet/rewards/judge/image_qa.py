"""Visual question answering: does the generated image lead a VQA model to the gold answer?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from motet.core.protocols import Policy
from motet.core.trajectory import Sampling
from motet.rewards.base import ModelReward, reward
from motet.rewards.image.pixels import scatter_scores, scorable_images
from motet.rewards.info import DEVICE, ENDPOINT, UNIT, RewardInfo
from motet.rewards.judge.endpoint import read_endpoint
from motet.rewards.judge.vqa import EndpointVQA, PolicyVQA, VQAModel, check_policy_can_judge, check_vqa_options
from motet.rewards.options import check_choice, check_number
from motet.rewards.text.answer_parsing import extract_answer
from motet.rewards.text.exact_match import exact_answer
from motet.rewards.text.multiple_choice import text_of_question
from motet.rewards.text.partial_credit import object_class

COMPARE = ("answer", "class", "graded_class")


@reward(
    "image_qa",
    info=RewardInfo(
        range=UNIT,
        model="the policy, or a VQA model at an endpoint",
        license="of the model chosen",
        size="of the model chosen",
        runs=f"{DEVICE} or {ENDPOINT}",
    ),
)
@dataclass(eq=False, kw_only=True)
class ImageQA(ModelReward):
    """Whether a VQA model, asked the row's question about the generated image, gives the gold answer: 1 to 0.

    CoRL's `t2i_qa` and `t2i_oc`. `vqa_model` is `policy` (with the `weights` that the run started from, `reference`, or
    the `current` ones) or `endpoint` (a mapping, see `motet.rewards.judge.endpoint`). `compare` is how its answer is
    compared with the gold one: as `exact_answer` does, or as an object's `class` or `graded_class` (see
    `object_class`). The score of an answer outside `<answer>` is multiplied by `untagged_factor` (CoRL: 0.8). NaN where
    the endpoint could not be reached.
    """

    vqa_model: Any = "policy"
    endpoint: Any = None
    weights: Any = "reference"
    max_tokens: Any = 128
    temperature: Any = 0.0
    compare: Any = "answer"
    untagged_factor: Any = 1.0
    batch_size: Any = 32

    def __post_init__(self) -> None:
        check_choice("image_qa", "vqa_model", self.vqa_model, ("policy", "endpoint"))
        check_choice("image_qa", "compare", self.compare, COMPARE)
        check_vqa_options("image_qa", self.weights, self.max_tokens, self.temperature, self.batch_size)
        check_number("image_qa", "untagged_factor", self.untagged_factor, 0.0, 1.0)
        if self.vqa_model == "endpoint":
            self.endpoint = read_endpoint("image_qa", self.endpoint)
        self.uses_reference = self.vqa_model == "policy" and self.weights == "reference"

    def prepare(self, policy: Policy) -> None:
        if self.vqa_model == "policy":
            check_policy_can_judge(policy, "image_qa", weights=self.weights, writes=True)

    def check_row(self, row: Mapping[str, Any]) -> None:
        columns = {name: row.get(name) for name in ("question", "answer", "options", "prompt")}
        if columns["question"] is not None and columns["answer"] is not None:
            self._score("<answer>?</answer>", columns)

    def __call__(
        self,
        completions: list[Any],
        question: list[Any],
        answer: list[Any],
        options: list[Any] | None = None,
        prompt: list[Any] | None = None,
        *,
        policy: Policy,
    ) -> list[float | None]:
        """One score per completion, from its last image; None for rows without a question or a gold answer."""
        applies = [asked is not None and gold is not None for asked, gold in zip(question, answer, strict=True)]
        places, images = scorable_images(completions, applies, "image_qa")
        replies = self._vqa(policy)(images, [text_of_question(question[place]) for place in places])
        columns = {"question": question, "answer": answer, "options": options, "prompt": prompt}
        rows = [{name: c and c[place] for name, c in columns.items()} for place in places]
        values = [
            math.nan if reply is None else self._score(reply, row) for reply, row in zip(replies, rows, strict=True)
        ]
        return scatter_scores(len(completions), places, values)

    def _vqa(self, policy: Policy) -> VQAModel:
        if self.vqa_model == "endpoint":
            return EndpointVQA(self.endpoint, "image_qa")
        sampling = Sampling(float(self.temperature), max_tokens=self.max_tokens)
        return PolicyVQA(policy, self.weights, sampling, self.batch_size)

    def _score(self, reply: str, row: Mapping[str, Any]) -> float:
        answer_tags = extract_answer(reply)
        completion = [{"role": "assistant", "content": reply if answer_tags is None else answer_tags}]
        if self.compare == "answer":
            choices = None if row["options"] is None else [row["options"]]
            (value,) = exact_answer([completion], [row["answer"]], [row["question"]], choices, answer_tags=False)
        else:
            asked = None if row["prompt"] is None else [row["prompt"]]
            graded = self.compare == "graded_class"
            (value,) = object_class([completion], [row["answer"]], asked, answer_tags=False, graded=graded)
        return (value or 0.0) * (1.0 if answer_tags is not None else self.untagged_factor)
