"""Whether a critique names exactly the mistakes of an image of the shapes world."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from motet.rewards.base import ModelReward, reward
from motet.rewards.image.pixels import image_of, scatter_scores
from motet.rewards.info import RewardInfo
from motet.rewards.options import check_bool, check_non_empty, check_number
from motet.rewards.text.exact_match import answer_of
from motet.shapes.errors_in_words import NOTHING, find_mistakes
from motet.shapes.verifier import parse_with_specs


@reward("critique", info=RewardInfo(range="0 or 1; with partial [0, 1]"))
@dataclass(eq=False, kw_only=True)
class Critique(ModelReward):
    """Whether the act `act` names every mistake of the draft and no other, in the grammar of
    `motet.shapes.errors_in_words`.

    1 or 0, whatever the order; with `partial` p in [0, 1] it is (1 - p) * exact + p * F1 of the mistakes named. The
    mistakes are those of the draft itself, the image of the act `draft`, or of the row's `column` if one is set,
    against the column `spec`; a row without one gets None. The answer is the one `<answer>` block, or with
    `answer_tags` false the whole text.
    """

    act: Any = "critique"
    draft: Any = "draft"
    column: Any = None
    answer_tags: Any = True
    partial: Any = 0.0

    def __post_init__(self) -> None:
        check_non_empty("critique", "act", self.act, "name of an act")
        check_non_empty("critique", "draft", self.draft, "name of an act")
        if self.column is not None:
            check_non_empty("critique", "column", self.column, "name of a column")
        check_bool("critique", "answer_tags", self.answer_tags)
        check_number("critique", "partial", self.partial, 0.0, 1.0)

    @property
    def required_columns(self) -> tuple[str, ...]:
        return () if self.column is None else (self.column,)

    @property
    def reads_acts(self) -> tuple[str, ...]:
        return (self.act, self.draft) if self.column is None else (self.act,)

    def __call__(
        self, completions: list[Any], spec: list[Mapping[str, Any] | None], **columns: Any
    ) -> list[float | None]:
        """One score per completion; None where the critique or the draft is missing."""
        said = [[message for message in completion if message.get("name") == self.act] for completion in completions]
        drafts = [self._draft(completion, columns, place) for place, completion in enumerate(completions)]
        scored = [
            (place, draft, wanted)
            for place, (texts, draft, wanted) in enumerate(zip(said, drafts, spec, strict=True))
            if texts and draft is not None and wanted is not None
        ]
        parsed = parse_with_specs([draft for _, draft, _ in scored], [wanted for *_, wanted in scored])
        values: list[float] = []
        for (place, _, wanted), scene in zip(scored, parsed, strict=True):
            answer = answer_of(said[place][-1:], self.answer_tags, "critique")
            mistakes = find_mistakes(scene, dict(wanted))
            values.append(0.0 if answer is None else agreement(answer, mistakes, self.partial))
        return scatter_scores(len(completions), [place for place, *_ in scored], values)

    def _draft(self, completion: Sequence[Any], columns: Mapping[str, Any], place: int) -> Image.Image | None:
        return image_of(completion, self.draft) if self.column is None else columns[self.column][place]


def agreement(answer: str, actual: Sequence[str], partial: float = 0.0) -> float:
    """How well an answer names these mistakes (none: `nothing`); case and a final full stop do not count."""
    parts = [" ".join(part.split()) for part in answer.lower().strip().removesuffix(".").split(",")]
    named, actual_counts = Counter(parts), Counter(actual or [NOTHING])
    f1 = 2 * (named & actual_counts).total() / (named.total() + actual_counts.total())
    return (1 - partial) * float(named == actual_counts) + partial * f1
