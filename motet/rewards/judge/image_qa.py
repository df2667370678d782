"""Questions about the drawing: can the policy, or a judge behind an endpoint, read the right answer off it?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from motet.core.protocols import Policy
from motet.core.trajectory import Sampling
from motet.rewards.base import ModelReward, reward
from motet.rewards.image.pixels import drawn, spread
from motet.rewards.judge.endpoint import read_endpoint
from motet.rewards.judge.vqa import EndpointVQA, PolicyVQA, VQAModel, check_judge, require
from motet.rewards.options import number, one_of
from motet.rewards.text.answer_parsing import extract_answer
from motet.rewards.text.exact_match import exact_answer
from motet.rewards.text.multiple_choice import text_of_question
from motet.rewards.text.partial_credit import object_class

COMPARE = ("answer", "class", "graded_class")


@reward("picture_qa")
@dataclass(eq=False, kw_only=True)
class ImageQA(ModelReward):
    """Whether the row's question, asked about the drawing, gets the gold answer: 1, or less as the options say, or 0.

    CoRL's `t2i_qa` and `t2i_oc`. `judge` is `policy` (with the `weights` that the run started from, or the `current`
    ones) or `endpoint` (a mapping, see `motet.rewards.judge.endpoint`). `compare` is how its answer meets the gold
    one: as
    `exact_answer` does, as an object's `class` or `graded_class` (see `object_class`). An answer outside `<answer>`
    counts `untagged` times as much (CoRL: 0.8). Where the judge could not be reached the value is NaN.
    """

    judge: Any = "policy"
    endpoint: Any = None
    weights: Any = "reference"
    max_tokens: Any = 128
    temperature: Any = 0.0
    compare: Any = "answer"
    untagged: Any = 1.0
    batch_size: Any = 32

    def __post_init__(self) -> None:
        one_of("picture_qa", "judge", self.judge, ("policy", "endpoint"))
        one_of("picture_qa", "compare", self.compare, COMPARE)
        check_judge("picture_qa", self.weights, self.max_tokens, self.temperature, self.batch_size)
        number("picture_qa", "untagged", self.untagged, 0.0, 1.0)
        if self.judge == "endpoint":
            self.endpoint = read_endpoint("picture_qa", self.endpoint)
        self.uses_reference = self.judge == "policy" and self.weights == "reference"

    def prepare(self, policy: Policy) -> None:
        if self.judge == "policy":
            require(policy, "picture_qa", weights=self.weights, writes=True)

    def check_row(self, row: Mapping[str, Any]) -> None:
        columns = {name: row.get(name) for name in ("question", "answer", "options", "prompt")}
        if columns["question"] is not None and columns["answer"] is not None:
            self._judge("<answer>?</answer>", columns)

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
        """One score per completion, from its last picture; None for rows without a question or a gold answer."""
        applies = [asked is not None and gold is not None for asked, gold in zip(question, answer, strict=True)]
        places, images = drawn(completions, applies, "picture_qa")
        replies = self._looker(policy)(images, [text_of_question(question[place]) for place in places])
        columns = {"question": question, "answer": answer, "options": options, "prompt": prompt}
        rows = [{name: c and c[place] for name, c in columns.items()} for place in places]
        values = [math.nan if said is None else self._judge(said, row) for said, row in zip(replies, rows, strict=True)]
        return spread(len(completions), places, values)

    def _looker(self, policy: Policy) -> VQAModel:
        if self.judge == "endpoint":
            return EndpointVQA(self.endpoint, "picture_qa")
        sampling = Sampling(float(self.temperature), max_tokens=self.max_tokens)
        return PolicyVQA(policy, self.weights, sampling, self.batch_size)

    def _judge(self, said: str, row: Mapping[str, Any]) -> float:
        tagged = extract_answer(said)
        completion = [{"role": "assistant", "content": said if tagged is None else tagged}]
        if self.compare == "answer":
            choices = None if row["options"] is None else [row["options"]]
            (value,) = exact_answer([completion], [row["answer"]], [row["question"]], choices, tagged=False)
        else:
            asked = None if row["prompt"] is None else [row["prompt"]]
            graded = self.compare == "graded_class"
            (value,) = object_class([completion], [row["answer"]], asked, tagged=False, graded=graded)
        return (value or 0.0) * (1.0 if tagged is not None else self.untagged)
