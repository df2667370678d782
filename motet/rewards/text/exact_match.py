"""Rewards that compare a text answer with a gold answer: 1 or 0.

CoRL (arXiv 2505.17534) describes them so; its released code scores word overlap, and gives 0.9 to an empty answer. A
row whose gold answer is None gets None: the reward does not apply to it. Of a list any is correct.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from motet.core.errors import ConfigError, DataError, RewardError
from motet.rewards.base import reward
from motet.rewards.info import BINARY, RewardInfo
from motet.rewards.options import check_choice
from motet.rewards.text.answer_parsing import extract_answer, same_answer, visible, well_formed
from motet.rewards.text.choice_parsing import chosen_letter, letter_of
from motet.rewards.text.gold_check import gold_texts, validates_gold
from motet.rewards.text.multiple_choice import options_of

RewardValues = list[float | None]


@reward("format", info=RewardInfo(range=BINARY))
def format_(completions: list[Any]) -> RewardValues:
    """Whether the text is `<think>thought</think><answer>answer</answer>`, neither part empty, and nothing else."""
    return [float(well_formed(last_text(c, "format"))) if c else None for c in completions]


@reward("answer_format", info=RewardInfo(range=BINARY))
def answer_format(completions: list[Any]) -> RewardValues:
    """Whether the text has exactly one non-empty `<answer>` block; the text around it does not matter.

    For thoughts and rewritten prompts. Not inside a thought, and without another tag in it; UniRL-Zero's code takes any
    block, or none but at the very start (`format` in its two versions).
    """
    return [float(extract_answer(last_text(c, "answer_format")) is not None) if c else None for c in completions]


@reward("exact_answer", options={"answer_tags": (True, False)}, info=RewardInfo(range=BINARY))
@validates_gold
def exact_answer(
    completions: list[Any],
    answer: list[Any],
    question: list[Any] | None = None,
    options: list[Any] | None = None,
    answer_tags: Any = True,
) -> RewardValues:
    """`multiple_choice` for rows that offer options, `open_ended` for the others.

    Options are in the column `options`, or lines `A. text` of the column `question`; lines count only if the gold
    answer is one of them. `answer_tags` False: the whole completion is the answer, not its `<answer>` block.
    """
    values: RewardValues = []
    for n, (completion, gold) in enumerate(zip(completions, answer, strict=True)):
        row = row_options(n, question, options)
        if options is None or not options[n]:  # lines of the question need not be options
            offered = row is not None and gold is not None and all(letter_of(text, row) for text in gold_texts(gold))
            row = row if offered else None
        judge = _open_ended if row is None else _multiple_choice
        values.append(judge(completion, gold, row, answer_tags, "exact_answer"))
    return values


@reward(
    "multiple_choice",
    options={"answer_tags": (True, False), "on_invalid_gold": ("error", "skip")},
    info=RewardInfo(range=BINARY),
)
@validates_gold
def multiple_choice(
    completions: list[Any],
    answer: list[Any],
    question: list[Any] | None = None,
    options: list[Any] | None = None,
    answer_tags: Any = True,
    *,
    on_invalid_gold: Any = "error",
) -> RewardValues:
    """Whether the answer chooses the gold option, by letter or by text; see `motet.rewards.text.choice_parsing`.

    A row without options is scored by its letter if its gold answer is one; otherwise the reward does not apply to it.
    A gold answer that is empty, or does not match exactly one option, is an error; with `on_invalid_gold: skip` the
    reward does not apply to its row: for large third-party sets.
    """
    check_choice("multiple_choice", "on_invalid_gold", on_invalid_gold, ("error", "skip"))
    values: RewardValues = []
    for n, (completion, gold) in enumerate(zip(completions, answer, strict=True)):
        row = row_options(n, question, options)
        skipped = on_invalid_gold == "skip" and gold is not None and not _names_an_option(gold, row)
        values.append(None if skipped else _multiple_choice(completion, gold, row, answer_tags, "multiple_choice"))
    return values


def _names_an_option(gold: Any, row: Any) -> bool:
    golds = gold if isinstance(gold, list | tuple) else [gold]
    if not golds or not all(isinstance(one, str) and visible(one) for one in golds):
        return False
    return all(letter_of(text, row) is not None for text in gold_texts(golds))


@reward("open_ended", options={"answer_tags": (True, False)}, info=RewardInfo(range=BINARY))
@validates_gold
def open_ended(completions: list[Any], answer: list[Any], answer_tags: Any = True) -> RewardValues:
    """Whether the answer equals the gold answer in normal form (`motet.rewards.text.answer_parsing.normalise`)."""
    return [
        _open_ended(completion, gold, None, answer_tags, "open_ended")
        for completion, gold in zip(completions, answer, strict=True)
    ]


def last_text(completion: Any, name: str) -> str:
    """The last text of a completion. Raises RewardError, naming the reward, when it has none."""
    if isinstance(completion, str):
        return completion
    for message in reversed(completion):
        if isinstance(message["content"], str):
            return message["content"]
        texts = [part["text"] for part in message["content"] if part.get("type") == "text"]
        if texts:
            return "".join(texts)
    raise RewardError(f"Reward {name!r} got a completion without text.", fix="name a text act in rewards.acts.")


def _open_ended(completion: Any, gold: Any, _: Sequence[str] | None, answer_tags: Any, name: str) -> float | None:
    if gold is None or not completion:
        return None
    answer = answer_of(completion, answer_tags, name)
    golds = gold_texts(gold)
    return float(answer is not None and any(same_answer(answer, one) for one in golds))


def _multiple_choice(
    completion: Any, gold: Any, options: Sequence[str] | None, answer_tags: Any, name: str
) -> float | None:
    if gold is None or not completion:
        return None
    letters = {letter_of(text, options) for text in gold_texts(gold)}
    right = letters - {None}
    if not right and options is None:
        return None
    if options is not None and right != letters:
        raise DataError(
            f"The gold answer {gold!r} is not one of the options {list(options or ())}, or more than one.",
            fix="correct the columns `answer` and `options`: a letter, or one option's text.",
        )
    answer = answer_of(completion, answer_tags, name)
    return float(answer is not None and chosen_letter(answer, options) in right)


def answer_of(completion: Any, answer_tags: Any, name: str) -> str | None:
    """The answer in a completion: its one `<answer>` block, or with `answer_tags` False all of its last text."""
    if not isinstance(answer_tags, bool):
        raise ConfigError(
            f"rewards.options.answer_tags={answer_tags!r} of {name!r} must be true or false.", fix="use true or false."
        )
    text = last_text(completion, name)
    return extract_answer(text) if answer_tags else text


def row_options(n: int, question: list[Any] | None, options: list[Any] | None) -> list[str] | None:
    column = options[n] if options is not None else None
    if column is not None and not isinstance(column, list | tuple):
        raise DataError(
            f"The column `options` holds a {type(column).__name__}, {column!r}, not a list.",
            fix="store the options' texts as a list, or map data.columns.options to such a column.",
        )
    return options_of(question[n] if question is not None else None, column)
