"""Pair every question with the caption of its image that covers most entities of its solution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from motet.core.errors import DataError
from motet.curation.coverage import coverage, entities
from motet.rewards.text.answer_parsing import extract_answer
from motet.rewards.text.choice_parsing import letter_of
from motet.rewards.text.multiple_choice import options_of

BINS: tuple[str, ...] = ("none", "up to 1/4", "up to 1/2", "up to 3/4", "below all", "all")
_ANSWER = {"MC": "the letter of one option", "OE": "one to three words"}


@dataclass(frozen=True)
class CurationQuestion:
    """A question about an image.

    `source_location` names its row in messages; `extra_columns` are the other columns of the row. `target_entities` are
    words that the caption should cover; None: the entities of the solution.
    """

    image: str
    text: str
    solution: str
    source_location: str
    options: tuple[str, ...] = ()
    target_entities: tuple[str, ...] | None = None
    extra_columns: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Curated:
    """Rows in the columns of x2x_rft_22k, and the questions that were left out.

    `coverages` are those of all pairs, including those below the minimum. `real_image` of a row is the image's id.
    """

    rows: list[dict[str, Any]]
    coverages: list[float]
    duplicates: int
    without_caption: list[CurationQuestion]
    without_entities: int
    num_below: int
    invalid_gold: list[CurationQuestion] = field(default_factory=list[CurationQuestion])

    @property
    def mean(self) -> float | None:
        """Mean coverage of the rows that have one."""
        known = [row["concept_coverage"] for row in self.rows if row["concept_coverage"] is not None]
        return sum(known) / len(known) if known else None

    def histogram(self) -> dict[str, int]:
        """Number of pairs by coverage, in `BINS`."""
        counts = dict.fromkeys(BINS, 0)
        for value in self.coverages:
            counts[_bin(value)] += 1
        return counts


def curate(
    questions: Sequence[CurationQuestion],
    captions: Mapping[str, Sequence[str]],
    *,
    min_coverage: float = 0.0,
    keep_without_entities: bool = True,
) -> Curated:
    """Pair questions with captions; of captions with equal coverage the first of the file is used.

    Left out and counted: a question that is repeated with the same solution, one whose solution is not one of its
    options or two, one whose image has no caption, and one whose best caption covers less than `min_coverage`. A
    solution without entities (a number, yes) has no coverage: its row gets None and the image's first caption, whatever
    the minimum, or with `keep_without_entities` False is left out.

    Raises DataError when no question's image has a caption.
    """
    done = Curated([], [], 0, [], 0, 0)
    seen: set[tuple[str, str, str]] = set()
    duplicates = without = num_below = 0
    for question in questions:
        key = (question.image, question.text, question.solution)
        duplicates += key in seen
        if key in seen:
            continue
        seen.add(key)
        if question.options and _letter(question) is None:
            done.invalid_gold.append(question)
            continue
        offered = captions.get(question.image)
        if not offered:
            done.without_caption.append(question)
            continue
        target_entities = _target_entities(question)
        if not target_entities:
            without += 1
            if keep_without_entities:
                done.rows.append(_row(question, offered[0], None))
            continue
        best = max(offered, key=lambda caption: coverage(target_entities, caption))
        share = coverage(target_entities, best)
        done.coverages.append(share)
        num_below += share < min_coverage
        if share >= min_coverage:
            done.rows.append(_row(question, best, share))
    if done.without_caption and len(done.without_caption) + len(done.invalid_gold) == len(seen):
        raise DataError(
            f"No question's image has a caption: questions name {questions[0].image!r}, captions "
            f"{next(iter(captions), None)!r}.",
            fix="use the same image names in both files.",
        )
    return Curated(done.rows, done.coverages, duplicates, done.without_caption, without, num_below, done.invalid_gold)


def _target_entities(question: CurationQuestion) -> frozenset[str]:
    texts = question.target_entities if question.target_entities is not None else (_solution_text(question),)
    return frozenset().union(*map(entities, texts))


def _solution_text(question: CurationQuestion) -> str:
    """The text of the solution: that of its option, if it names one."""
    answer = _answer(question)
    letter = _letter(question)
    return answer if letter is None else _options(question)[ord(letter) - ord("A")]


def _answer(question: CurationQuestion) -> str:
    return extract_answer(question.solution) or question.solution.strip()


def _options(question: CurationQuestion) -> list[str]:
    return options_of(question.text, question.options) or []


def _letter(question: CurationQuestion) -> str | None:
    options = _options(question)
    return letter_of(_answer(question), options) if options else None


def _row(question: CurationQuestion, caption: str, share: float | None) -> dict[str, Any]:
    kind = "OE" if _letter(question) is None else "MC"
    has_tags = extract_answer(question.solution) is not None
    row = {
        "real_image": question.image,
        "prompt": caption,
        "qa_problem": _problem(question, kind),
        "qa_solution": question.solution if has_tags else f"<answer>{_answer(question)}</answer>",
        "qa_type": kind,
        "concept_coverage": share,
    }
    return {**question.extra_columns, **row}


def _problem(question: CurationQuestion, kind: str) -> str:
    """The question, its options as lines, and the required output format, unless its text names the tags."""
    whole = "<answer>" in question.text
    if whole and not question.options:
        return question.text
    lines = [question.text.strip() if whole else f"Question: {question.text.strip()}"]
    if question.options:
        lettered = [f"{chr(ord('A') + n)}. {option}" for n, option in enumerate(_options(question))]
        lines += ["Options:", *lettered]
    if whole:
        return "\n".join(lines)
    instruction = f"Think first, then give {_ANSWER[kind]}, in this form: <think>...</think><answer>...</answer>"
    return "\n".join([*lines, "", instruction])


def _bin(value: float) -> str:
    if value in (0.0, 1.0):
        return BINS[-1] if value else BINS[0]
    return BINS[1 + sum(value > edge for edge in (0.25, 0.5, 0.75))]
