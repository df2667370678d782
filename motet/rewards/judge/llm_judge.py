"""LLM-as-a-judge: the score that a vision-language model behind an endpoint gives an image, such as UnifiedReward."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from motet.core.errors import ConfigError, RewardError
from motet.rewards.base import ModelReward, reward
from motet.rewards.image.pixels import image_of
from motet.rewards.info import ENDPOINT, RewardInfo
from motet.rewards.judge.endpoint import ask, read_endpoint
from motet.rewards.options import check_bool, check_non_empty, check_number, raise_option_error
from motet.rewards.text.multiple_choice import text_of_question

QUESTION = (
    "A picture was drawn for the caption below. Judge how well it shows what the caption says (things, attributes, "
    "numbers, places) and how good a picture it is (clarity, realism, composition). Write a short reason, then "
    "'Final Score: ' and a number from 1 (worst) to 5 (best).\nCaption: {prompt}"
)
PATTERN = r"Final Score:\s*(?:\*+\s*)?([0-9]+(?:\.[0-9]+)?)"  # two \s* side by side would take quadratic time


@reward(
    "judged",
    info=RewardInfo(
        range="[-1, 1]; [0, 1] for a pattern without minus sign",
        model="any vision-language model at an endpoint (UnifiedReward)",
        license="of the model chosen",
        size="of the model chosen",
        runs=ENDPOINT,
    ),
)
@dataclass(eq=False, kw_only=True)
class Judged(ModelReward):
    """The score in an endpoint's reply about an image, divided by `scale`, the best score; UniRL-Zero's UnifiedReward.

    `endpoint` is a mapping, see `motet.rewards.judge.endpoint`. `question` has columns in braces ({prompt},
    {instruction}); `pattern` is the regular expression whose first group is the number, the last one in the reply.
    `act` is the act that is scored (None: the last image); with `source` the row's image is sent before it. A
    reply without a number or with one beyond `scale`, and one that did not come, is NaN: it drops the trajectory.
    RewardError when two or more numbers are all beyond `scale`. A row that lacks a column gets None.
    """

    endpoint: Any = None
    question: Any = QUESTION
    pattern: Any = PATTERN
    scale: Any = 5.0
    act: Any = None
    source: Any = False

    def __post_init__(self) -> None:
        self.endpoint = read_endpoint("judged", self.endpoint)
        check_non_empty("judged", "question", self.question, "text")
        check_non_empty("judged", "pattern", self.pattern, "regular expression")
        check_number("judged", "scale", self.scale, 1e-6)
        check_bool("judged", "source", self.source)
        if self.act is not None:
            check_non_empty("judged", "act", self.act, "name of an act")
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise ConfigError(
                f"rewards.options.pattern of 'judged' is not a regular expression: {error}.", fix="correct the pattern."
            ) from None
        if groups < 1:
            raise_option_error("judged", "pattern", self.pattern, "has no group", fix="put the number in parentheses.")

    @property
    def required_columns(self) -> tuple[str, ...]:
        return (*dict.fromkeys(re.findall(r"{(\w+)}", self.question)), *(("images",) if self.source else ()))

    @property
    def reads_acts(self) -> tuple[str, ...]:
        return () if self.act is None else (self.act,)

    def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
        """One score per completion."""
        asked = [self._request(completion, columns, place) for place, completion in enumerate(completions)]
        requests = [one for one in asked if one is not None]
        replies = ask(
            self.endpoint, [images for images, _ in requests], [question for _, question in requests], "judged"
        )
        numbers = [self._number(reply) for reply in replies]
        found = [number for number in numbers if not math.isnan(number)]
        if len(found) > 1 and all(abs(number) > self.scale for number in found):
            raise RewardError(
                f"Reward 'judged' got {found[0]:g}; all {len(found)} scores are beyond its scale {self.scale:g}.",
                fix="set rewards.options.scale to the best score, and say in `question` what it is.",
            )
        values = iter(math.nan if abs(number) > self.scale else number / self.scale for number in numbers)
        return [None if one is None else next(values) for one in asked]

    def _request(
        self, completion: Sequence[Any], columns: Mapping[str, Any], place: int
    ) -> tuple[list[Image.Image], str] | None:
        generated = image_of(completion, self.act)
        row = {name: columns[name][place] for name in self.required_columns}
        if generated is None or any(value is None for value in row.values()):
            return None
        texts = {name: text_of_question(value) for name, value in row.items() if name != "images"}
        question = re.sub(r"{(\w+)}", lambda found: texts[found[1]], self.question)
        return [*([row["images"][0]] if self.source else []), generated], question

    def _number(self, reply: str | None) -> float:
        """The last number of a reply; NaN if it has none."""
        found = [match[1] for match in re.finditer(self.pattern, reply or "")]
        try:
            return float(found[-1]) if found else math.nan
        except (TypeError, ValueError):  # the group took no part in the match, or took no number
            return math.nan
