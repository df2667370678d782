"""What a vision-language model behind an endpoint says a picture is worth: UnifiedReward and judges like it."""

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
from motet.rewards.judge.endpoint import ask, read_endpoint
from motet.rewards.options import boolean, filled, number, refuse
from motet.rewards.text.multiple_choice import text_of_question

QUESTION = (
    "A picture was drawn for the caption below. Judge how well it shows what the caption says (things, attributes, "
    "numbers, places) and how good a picture it is (clarity, realism, composition). Write a short reason, then "
    "'Final Score: ' and a number from 1 (worst) to 5 (best).\nCaption: {prompt}"
)
PATTERN = r"Final Score:\s*(?:\*+\s*)?([0-9]+(?:\.[0-9]+)?)"  # two \s* side by side would take quadratic time


@reward("judged")
@dataclass(eq=False, kw_only=True)
class Judged(ModelReward):
    """The number in an endpoint's reply about the drawing, over `scale`, its best; UniRL-Zero's UnifiedReward, /5.

    `endpoint` is a mapping, see `motet.rewards.judge.endpoint`. The words of `question` hold columns in braces
    ({prompt},
    {instruction}); `pattern` is the regular expression whose first group is the number, the last one in the reply.
    `act` is the act that is judged (None: the last picture); with `source` the row's picture is shown before it. A
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
        filled("judged", "question", self.question, "text")
        filled("judged", "pattern", self.pattern, "regular expression")
        number("judged", "scale", self.scale, 1e-6)
        boolean("judged", "source", self.source)
        if self.act is not None:
            filled("judged", "act", self.act, "name of an act")
        try:
            groups = re.compile(self.pattern).groups
        except re.error as error:
            raise ConfigError(f"rewards.options.pattern of 'judged' is none: {error}.", fix="correct it.") from None
        if groups < 1:
            refuse("judged", "pattern", self.pattern, "has no group", fix="put the number in parentheses.")

    @property
    def needs(self) -> tuple[str, ...]:
        return (*dict.fromkeys(re.findall(r"{(\w+)}", self.question)), *(("images",) if self.source else ()))

    @property
    def sees(self) -> tuple[str, ...]:
        return () if self.act is None else (self.act,)

    def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
        """One score per completion."""
        asked = [self._asked(completion, columns, place) for place, completion in enumerate(completions)]
        told = [one for one in asked if one is not None]
        replies = ask(self.endpoint, [shown for shown, _ in told], [words for _, words in told], "judged")
        numbers = [self._number(reply) for reply in replies]
        found = [number for number in numbers if not math.isnan(number)]
        if len(found) > 1 and all(abs(number) > self.scale for number in found):
            raise RewardError(
                f"Reward 'judged' was told {found[0]:g}, and {len(found)} of {len(found)} numbers are beyond its scale "
                f"of {self.scale:g}.",
                fix="set rewards.options.scale to the best score, and say in `question` what it is.",
            )
        values = iter(math.nan if abs(number) > self.scale else number / self.scale for number in numbers)
        return [None if one is None else next(values) for one in asked]

    def _asked(
        self, completion: Sequence[Any], columns: Mapping[str, Any], place: int
    ) -> tuple[list[Image.Image], str] | None:
        drawing = image_of(completion, self.act)
        row = {name: columns[name][place] for name in self.needs}
        if drawing is None or any(value is None for value in row.values()):
            return None
        words = {name: text_of_question(value) for name, value in row.items() if name != "images"}
        question = re.sub(r"{(\w+)}", lambda found: words[found[1]], self.question)
        return [*([row["images"][0]] if self.source else []), drawing], question

    def _number(self, reply: str | None) -> float:
        """The last number of a reply; NaN if it has none."""
        found = [match[1] for match in re.finditer(self.pattern, reply or "")]
        try:
            return float(found[-1]) if found else math.nan
        except (TypeError, ValueError):  # the group took no part in the match, or took no number
            return math.nan
