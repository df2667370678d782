"""Rewards of text with values between 0 and 1, as in CoRL's released code, and selection of a reward by a row's type.

All give 0 to an empty answer. A row whose gold answer is None gets None; of a list of gold answers
the best match counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

from motet.core.errors import DataError
from motet.rewards.base import reward
from motet.rewards.captions.lexicon import BE, DETERMINERS, FILLERS, RELATIONS
from motet.rewards.info import UNIT, RewardInfo
from motet.rewards.options import check_bool, check_choice
from motet.rewards.text.answer_parsing import normalise, same_answer, visible
from motet.rewards.text.exact_match import RewardValues, answer_of, last_text, multiple_choice, open_ended
from motet.rewards.text.gold_check import gold_texts, validates_gold
from motet.rewards.text.multiple_choice import text_of_question

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
FUZZY_MATCH_THRESHOLD = 0.8
"""Words whose spelling agrees to this share count in part (CoRL's threshold of SequenceMatcher's ratio)."""
EXTRA_WORDS = 3
"""Maximum number of extra words in a graded answer; rejects answers that enumerate candidates."""
_EMPTY_WORDS = DETERMINERS | RELATIONS | FILLERS | BE | {"and", "or"}


@reward("format_tags", info=RewardInfo(range="[0, 0.5]"))
def format_tags(completions: list[Any]) -> RewardValues:
    """0.125 for each of <think>, </think>, <answer>, </answer> that occurs exactly once: at most 0.5.

    CoRL's released code (`format_tag`). It is a step towards `format` and does not replace it: it ignores order, text
    around the tags and empty blocks.
    """
    return [_tags(last_text(c, "format_tags")) if c else None for c in completions]


@reward("soft_answer", options={"answer_tags": (True, False)}, info=RewardInfo(range=UNIT))
@validates_gold
def soft_answer(completions: list[Any], answer: list[Any], answer_tags: Any = True) -> RewardValues:
    """1 for an answer that equals the gold one in normal form, else the soft Jaccard overlap of their words.

    CoRL's released reward for open-ended questions; the paper's is binary, which is `open_ended`.
    """
    check_bool("soft_answer", "answer_tags", answer_tags)
    values: RewardValues = []
    for completion, gold in zip(completions, answer, strict=True):
        if gold is None or not completion:
            values.append(None)
            continue
        said = answer_of(completion, answer_tags, "soft_answer")
        golds = gold_texts(gold)
        values.append(0.0 if said is None else max(soft_match(said, one) for one in golds))
    return values


@reward(
    "object_class",
    options={"answer_tags": (True, False), "graded": (True, False)},
    info=RewardInfo(range="0 or 1; graded: 0, 0.5, 0.9, 1"),
)
@validates_gold
def object_class(
    completions: list[Any],
    answer: list[Any],
    prompt: list[Any] | None = None,
    answer_tags: Any = True,
    graded: Any = False,
) -> RewardValues:
    """Whether the answer names the gold class; with `graded` true also 0.9 and 0.5 for near misses.

    CoRL's `oc_accuracy` and `t2i_oc`: 1 for the same name, 0.9 if one name contains the other, and, when the data has a
    column `prompt`, 0.5 if the prompt mentions the answer. See `class_match`.
    """
    check_bool("object_class", "answer_tags", answer_tags)
    check_bool("object_class", "graded", graded)
    values: RewardValues = []
    for n, (completion, gold) in enumerate(zip(completions, answer, strict=True)):
        if gold is None or not completion:
            values.append(None)
            continue
        said = answer_of(completion, answer_tags, "object_class")
        asked = text_of_question(prompt[n]) if prompt is not None and graded else None
        golds = gold_texts(gold)
        values.append(0.0 if said is None else max(class_match(said, one, asked, graded=graded) for one in golds))
    return values


@reward(
    "qa_accuracy",
    options={"answer_tags": (True, False), "open": ("exact", "soft"), "on_invalid_gold": ("error", "skip")},
    info=RewardInfo(range="0 or 1; with open: soft [0, 1]"),
)
@validates_gold
def qa_accuracy(
    completions: list[Any],
    answer: list[Any],
    qa_type: list[Any],
    question: list[Any] | None = None,
    options: list[Any] | None = None,
    *,
    answer_tags: Any = True,
    open: Any = "exact",
    on_invalid_gold: Any = "error",
) -> RewardValues:
    """`multiple_choice` where the column `qa_type` says MC; for OE `open_ended`, or `soft_answer` if `open` is soft.

    CoRL's data names the type of each row so (x2x_rft_22k). `on_invalid_gold` is that of `multiple_choice`.
    Raises DataError for another type.
    """
    check_choice("qa_accuracy", "open", open, ("exact", "soft"))
    check_choice("qa_accuracy", "on_invalid_gold", on_invalid_gold, ("error", "skip"))
    values: RewardValues = []
    for n, (completion, gold, kind) in enumerate(zip(completions, answer, qa_type, strict=True)):
        if kind == "MC":
            own = [None if column is None else [column[n]] for column in (question, options)]
            values += multiple_choice(
                [completion], [gold], *own, answer_tags=answer_tags, on_invalid_gold=on_invalid_gold
            )
        elif kind == "OE":
            values += (soft_answer if open == "soft" else open_ended)([completion], [gold], answer_tags=answer_tags)
        else:
            raise DataError(
                f"The column `qa_type` holds {kind!r}; must be 'MC' or 'OE'.",
                fix="correct the column, or use the reward exact_answer, which decides by the row's options.",
            )
    return values


def soft_match(answer: str, gold: str) -> float:
    """1 for equal normal forms, else `soft_jaccard`."""
    return 1.0 if same_answer(answer, gold) else soft_jaccard(answer, gold)


def soft_jaccard(first: str, second: str) -> float:
    """Overlap of two texts' sets of words, in [0, 1]: `shared / (|a| + |b| - shared)`.

    `shared` counts equal words, and of the others the pairs whose spellings agree to a share of at least 0.8
    (difflib's ratio), each by that share; the best pairs first, each word once. Case and final punctuation do not
    count. CoRL's released code, whose pairs depend on the order of a set.
    """
    a, b = _words(first), _words(second)
    shared = float(len(a & b))
    pairs = sorted(
        ((-SequenceMatcher(None, x, y).ratio(), x, y) for x in a - b for y in b - a),
    )
    taken: set[tuple[int, str]] = set()
    for ratio, x, y in pairs:
        if -ratio >= FUZZY_MATCH_THRESHOLD and not {(0, x), (1, y)} & taken:
            shared -= ratio
            taken |= {(0, x), (1, y)}
    union = len(a) + len(b) - shared
    return shared / union if union else 0.0


def class_match(answer: str, gold: str, prompt: str | None = None, *, graded: bool = False) -> float:
    """How well an answer names a class: 1 for equal normal forms, 0 otherwise; graded also 0.9 and 0.5.

    0.9: one name contains the other as whole words, and the answer is at most three words longer. 0.5: the prompt
    contains the answer. An answer without a content word (`the`, `of`) gets 0.
    """
    said, name = normalise(answer).split(), normalise(gold).split()
    if same_answer(answer, gold):
        return 1.0
    if not graded or not visible(answer) or all(word in _EMPTY_WORDS for word in said):
        return 0.0
    if len(said) <= len(name) + EXTRA_WORDS and (_contains(said, name) or _contains(name, said)):
        return 0.9
    return 0.5 if prompt is not None and _contains(normalise(prompt).split(), said) else 0.0


def _tags(text: str) -> float:
    return 0.125 * sum(text.count(tag) == 1 for tag in TAGS)


def _words(text: str) -> set[str]:
    words = (word.rstrip(".,!?;:") for word in text.lower().split())
    return {word for word in words if visible(word)}


def _contains(words: Sequence[str], part: Sequence[str]) -> bool:
    """Whether `part` is a contiguous part of `words`."""
    return any(list(words[n : n + len(part)]) == list(part) for n in range(len(words) - len(part) + 1)) and bool(part)
