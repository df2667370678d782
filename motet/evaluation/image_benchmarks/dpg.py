"""DPG-Bench (Hu et al. 2024, ELLA, arXiv 2403.05135): yes-or-no questions about long prompts.

As in its released `compute_dpg_bench.py`: an image's score is the share of its questions that are answered yes, where a
question counts as no if one that it depends on does; the score is the mean over images, then over prompts. Categories
are means over all their questions, by the answers alone: `entity`, and below it `entity - whole`, ... That code takes
only the last image of a prompt for the categories, and drops the first question of the file; both are not done here.

The paper's model is mPLUG-large, which transformers does not have. Any other judge gives other numbers than published.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from motet.core.errors import DataError
from motet.core.protocols import Policy
from motet.evaluation.image_benchmarks.base import ImageBenchmark, ScoreImages, tile
from motet.evaluation.image_benchmarks.judge import JudgedOptions, open_judge, parse
from motet.evaluation.image_benchmarks.prompts import Prompt, read_benchmark, text_of
from motet.evaluation.image_benchmarks.scores import ImageScore
from motet.report.image_grid import save_image

COLUMNS = ("item_id", "text", "proposition_id", "dependency", "tuple", "question_natural_language")
INSTRUCTION = "{question} Answer with yes or no."
SCORE = "all questions"
"""The group whose mean is the benchmark's score."""


@dataclass(frozen=True)
class Question:
    """One proposition of a prompt. `parents` are the ids of those that it depends on."""

    id: int
    text: str
    category: str
    parents: tuple[int, ...]


class DPGOptions(JudgedOptions):
    """Options of the evaluation suite `dpg`."""


class DPGSuite(ImageBenchmark):
    """DPG-Bench; `prompts` is its file dpg_bench.csv."""

    name = "dpg"
    title = "DPG-Bench: share of questions answered yes"
    default_samples = 4
    Settings = DPGOptions

    def read(self, options: DPGOptions) -> list[Prompt]:
        """Rows of one question each, in `COLUMNS`; those of a prompt have its `item_id`."""
        found: dict[str, tuple[str, str, list[Question]]] = {}
        for place, row in read_benchmark(options.sources, options.split, COLUMNS):
            item = str(row["item_id"])
            if not re.fullmatch(r"\w[\w. -]*", item):  # it names a file
                raise DataError(f"{place}: item_id={item!r:.80} is not a name.", fix="use letters, digits and - _ .")
            _, _, questions = found.setdefault(item, (place, text_of(row, "text", place), []))
            questions.append(_question(row, place))
        prompts = [
            Prompt(item, text, {"questions": questions}, place) for item, (place, text, questions) in found.items()
        ]
        for prompt in prompts:
            _check_prompt(prompt)
        return prompts

    def open(self, options: DPGOptions, policy: Policy) -> ScoreImages:
        """Every image is asked all questions of its prompt."""
        judge = open_judge(options.judge, self.name)

        def score(prompts: Sequence[Prompt], images: Sequence[Sequence[Image.Image]]) -> list[list[ImageScore]]:
            asked = [
                (image, question)
                for prompt, own in zip(prompts, images, strict=True)
                for image in own
                for question in prompt.row["questions"]
            ]
            texts = [INSTRUCTION.format(question=question.text) for _, question in asked]
            replies = iter(judge([image for image, _ in asked], texts))
            return [
                [score_image(questions, [next(replies) for _ in questions]) for _ in own]
                for questions, own in zip([p.row["questions"] for p in prompts], images, strict=True)
            ]

        return score

    def weights(self, prompts: Sequence[Prompt]) -> Mapping[str, float]:
        """The score alone."""
        return {SCORE: 1.0}

    def write(self, folder: Path, prompt: Prompt, images: Sequence[Image.Image]) -> None:
        """`ITEM_ID.png`, the images two by two, as compute_dpg_bench.py cuts them."""
        save_image(tile(images, columns=2 if len(images) > 1 else 1), folder / f"{prompt.name}.png")


def score_image(questions: Sequence[Question], replies: Sequence[str | Exception]) -> ImageScore:
    """The score of one image from the reply to each question; none if one of them is neither yes nor no."""
    answers: dict[int, bool] = {}
    for question, reply in zip(questions, replies, strict=True):
        answer, reason = parse(reply, yes_or_no, "yes or no")
        if answer is None:
            return ImageScore(None, reason=f"question {question.id}: {reason}")
        answers[question.id] = answer
    counted = dict(answers)
    for question in questions:  # in the file's order, so that what a question lost is lost for those after it too
        if any(not counted[parent] for parent in question.parents):
            counted[question.id] = False
    value = sum(counted.values()) / len(counted)
    broad: dict[str, list[float]] = {}
    detailed: dict[str, list[float]] = {}
    for question in questions:
        name = question.category.split("-")[0].strip()
        broad.setdefault(name, []).append(float(answers[question.id]))
        if name != question.category:
            detailed.setdefault(question.category, []).append(float(answers[question.id]))
    details = {"answers": {str(id): answer for id, answer in answers.items()}}
    return ImageScore(value, {SCORE: [value], **broad, **detailed}, details)


def yes_or_no(reply: str) -> bool | None:
    """Whether a reply begins with yes or no, whatever the case; None if with neither."""
    first = re.match(r"\W*(yes|no)\b", reply, re.IGNORECASE)
    return None if first is None else first[1].lower() == "yes"


def _question(row: Mapping[str, Any], place: str) -> Question:
    try:
        parents = [int(float(part)) for part in str(row["dependency"]).split(",")]
        number = int(row["proposition_id"])
    except (TypeError, ValueError):
        raise DataError(
            f"{place}: proposition_id={row['proposition_id']!r} and dependency={row['dependency']!r:.80} are not "
            "numbers, the latter with commas between them.",
            fix="use DPG-Bench's own dpg_bench.csv.",
        ) from None
    category = text_of(row, "tuple", place).split("(")[0].strip()
    text = text_of(row, "question_natural_language", place)
    return Question(number, text, category, tuple(parent for parent in parents if parent != 0))


def _check_prompt(prompt: Prompt) -> None:
    questions: Sequence[Question] = prompt.row["questions"]
    ids = [question.id for question in questions]
    unknown = {parent for question in questions for parent in question.parents} - set(ids)
    if len(set(ids)) != len(ids) or unknown:
        what = f"depends on the propositions {sorted(unknown)}, which it does not have" if unknown else "repeats an id"
        raise DataError(f"{prompt.place}: item {prompt.name} {what}.", fix="use DPG-Bench's own dpg_bench.csv.")
