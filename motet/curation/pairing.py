"""Every question gets the caption of its picture that covers most of its solution's entities."""

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
class Question:
    """A question about a picture. `place` says where it stands, for messages; `others` are further columns of its row.

    `wanted` are words that a caption shall cover; None: the entities of the solution.
    """

    image: str
    text: str
    solution: str
    place: str
    options: tuple[str, ...] = ()
    wanted: tuple[str, ...] | None = None
    others: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Curated:
    """Rows in the columns of x2x_rft_22k, and what happened to the questions that are not among them.

    `coverages` are those of all pairs, the ones below the floor included. `real_image` of a row is the image's id.
    """

    rows: list[dict[str, Any]]
    coverages: list[float]
    duplicates: int
    without_caption: list[Question]
    without_entities: int
    below: int
    invalid_gold: list[Question] = field(default_factory=list[Question])

    @property
    def mean(self) -> float | None:
        """Mean coverage of the rows that have one."""
        known = [row["concept_coverage"] for row in self.rows if row["concept_coverage"] is not None]
        return sum(known) / len(known) if known else None

    def histogram(self) -> dict[str, int]:
        """How many pairs have how much of their entities covered, by `BINS`."""
        counts = dict.fromkeys(BINS, 0)
        for value in self.coverages:
            counts[_bin(value)] += 1
        return counts


def curate(
    questions: Sequence[Question],
    captions: Mapping[str, Sequence[str]],
    *,
    floor: float = 0.0,
    keep_without_entities: bool = True,
) -> Curated:
    """Pair questions with captions; of captions that cover equally much, the first of the file is taken.

    Left out and counted: a question that comes again with the same solution, one whose solution is none of its options
    or two, one whose picture has no caption, and one whose best caption covers less than `floor`. A solution without
    entities (a number, yes) has no coverage: its row gets None and the picture's first caption, whatever the floor, or
    with `keep_without_entities` False is left out.

    Raises DataError when no question's picture has a caption.
    """
    done = Curated([], [], 0, [], 0, 0)
    seen: set[tuple[str, str, str]] = set()
    duplicates = without = below = 0
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
        wanted = _wanted(question)
        if not wanted:
            without += 1
            if keep_without_entities:
                done.rows.append(_row(question, offered[0], None))
            continue
        best = max(offered, key=lambda caption: coverage(wanted, caption))
        share = coverage(wanted, best)
        done.coverages.append(share)
        below += share < floor
        if share >= floor:
            done.rows.append(_row(question, best, share))
    if done.without_caption and len(done.without_caption) + len(done.invalid_gold) == len(seen):
        raise DataError(
            f"No question's picture has a caption: questions name {questions[0].image!r}, captions "
            f"{next(iter(captions), None)!r}.",
            fix="name pictures alike in both files.",
        )
    return Curated(done.rows, done.coverages, duplicates, done.without_caption, without, below, done.invalid_gold)


def _wanted(question: Question) -> frozenset[str]:
    texts = question.wanted if question.wanted is not None else (_meaning(question),)
    return frozenset().union(*map(entities, texts))


def _meaning(question: Question) -> str:
    """The words of the solution: those of the option that it names, if it names one."""
    answer = _answer(question)
    letter = _letter(question)
    return answer if letter is None else _options(question)[ord(letter) - ord("A")]


def _answer(question: Question) -> str:
    return extract_answer(question.solution) or question.solution.strip()


def _options(question: Question) -> list[str]:
    return options_of(question.text, question.options) or []


def _letter(question: Question) -> str | None:
    options = _options(question)
    return letter_of(_answer(question), options) if options else None


def _row(question: Question, caption: str, share: float | None) -> dict[str, Any]:
    kind = "OE" if _letter(question) is None else "MC"
    tagged = extract_answer(question.solution) is not None
    row = {
        "real_image": question.image,
        "prompt": caption,
        "qa_problem": _problem(question, kind),
        "qa_solution": question.solution if tagged else f"<answer>{_answer(question)}</answer>",
        "qa_type": kind,
        "concept_coverage": share,
    }
    return {**question.others, **row}


def _problem(question: Question, kind: str) -> str:
    """The question, its options as lines, and what the format reward asks for, unless its text names the tags."""
    whole = "<answer>" in question.text
    if whole and not question.options:
        return question.text
    lines = [question.text.strip() if whole else f"Question: {question.text.strip()}"]
    if question.options:
        lettered = [f"{chr(ord('A') + n)}. {option}" for n, option in enumerate(_options(question))]
        lines += ["Options:", *lettered]
    if whole:
        return "\n".join(lines)
    wish = f"Think first, then give {_ANSWER[kind]}, in this form: <think>...</think><answer>...</answer>"
    return "\n".join([*lines, "", wish])


def _bin(value: float) -> str:
    if value in (0.0, 1.0):
        return BINS[-1] if value else BINS[0]
    return BINS[1 + sum(value > edge for edge in (0.25, 0.5, 0.75))]
