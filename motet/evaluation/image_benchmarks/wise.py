"""WISE (Niu et al. 2025, arXiv 2503.07265): prompts that need knowledge of the world, scored by a judge.

WiScore = (0.7 consistency + 0.2 realism + 0.1 aesthetic quality) / 2, each 0, 1 or 2; the overall score weights six
categories by their share of the 1,000 prompts. Published scores are those of gpt-4o-2024-05-13 with the authors' own
instruction, which `instruction` takes as a file; motet's own asks for the same three scores.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image

from motet.core.errors import ConfigError, DataError
from motet.core.protocols import Policy
from motet.core.registry import first_line
from motet.evaluation.image_benchmarks.base import ImageBenchmark, ScoreImages
from motet.evaluation.image_benchmarks.judge import JudgedOptions, open_judge, parse
from motet.evaluation.image_benchmarks.prompts import Prompt, read_benchmark, text_of
from motet.evaluation.image_benchmarks.scores import ImageScore
from motet.report.image_grid import save_image

CATEGORIES = {
    "cultural": (range(1, 401), 0.4),
    "time": (range(401, 568), 0.167),
    "space": (range(568, 701), 0.133),
    "biology": (range(701, 801), 0.1),
    "physics": (range(801, 901), 0.1),
    "chemistry": (range(901, 1001), 0.1),
}
"""Category -> the ids of its prompts, and its weight."""
WEIGHTS = {"consistency": 7, "realism": 2, "aesthetic quality": 1}
"""In tenths."""
INSTRUCTION = """You grade an image that a model generated from a prompt. Give three whole numbers, and be strict:
2 only where nothing can be criticised, 1 where something is missing or wrong, 0 where it fails.

Consistency: does the image show what the prompt means, as the explanation says?
Realism: do objects, light and materials look as they do in a photograph?
Aesthetic Quality: are composition, colours and style good?

Prompt: {prompt}
Explanation: {explanation}

Reply with these three lines only, with a number for N:
Consistency: N
Realism: N
Aesthetic Quality: N"""


class WiseOptions(JudgedOptions):
    """Options of the evaluation suite `wise`."""

    instruction: str | None = None
    """File with the judge's instruction, in which {prompt} and {explanation} are replaced; None: motet's own."""


class WiseSuite(ImageBenchmark):
    """WISE; `prompts` are its cultural_common_sense.json, spatio-temporal_reasoning.json and natural_science.json."""

    name = "wise"
    title = "WISE: WiScore"
    default_samples = 1
    Settings = WiseOptions

    def read(self, options: WiseOptions) -> list[Prompt]:
        """Rows of {prompt_id, Prompt, Explanation}."""
        prompts = []
        for place, row in read_benchmark(options.sources, options.split, ("prompt_id", "Prompt", "Explanation")):
            category = category_of(row["prompt_id"])
            if category is None:
                problem = f"{place}: prompt_id={row['prompt_id']!r} is not a number from 1 to 1000."
                raise DataError(problem, fix="use WISE's own files.")
            content = {"category": category, "explanation": text_of(row, "Explanation", place)}
            prompts.append(Prompt(str(row["prompt_id"]), text_of(row, "Prompt", place), content, place))
        return prompts

    def open(self, options: WiseOptions, policy: Policy) -> ScoreImages:
        """One request per image."""
        judge, instruction = open_judge(options.judge, self.name), _instruction(options.instruction)

        def score(prompts: Sequence[Prompt], images: Sequence[Sequence[Image.Image]]) -> list[list[ImageScore]]:
            asked = [(prompt, image) for prompt, own in zip(prompts, images, strict=True) for image in own]
            texts = [_filled(instruction, prompt) for prompt, _ in asked]
            replies = judge([image for _, image in asked], texts)
            scores = iter(score_image(prompt, reply) for (prompt, _), reply in zip(asked, replies, strict=True))
            return [[next(scores) for _ in own] for own in images]

        return score

    def weights(self, prompts: Sequence[Prompt]) -> Mapping[str, float]:
        """The published weights of the categories."""
        return {name: weight for name, (_, weight) in CATEGORIES.items()}

    def write(self, folder: Path, prompt: Prompt, images: Sequence[Image.Image]) -> None:
        """`PROMPT_ID.png`, the first image, as gpt_eval.py reads it; further ones as `PROMPT_ID_1.png`, ..."""
        for number, image in enumerate(images):
            save_image(image, folder / f"{prompt.name}{f'_{number}' if number else ''}.png")


def category_of(prompt_id: object) -> str | None:
    """The category of a prompt by its id; None if it is not one of WISE's."""
    if not isinstance(prompt_id, int):
        return None
    return next((name for name, (ids, _) in CATEGORIES.items() if prompt_id in ids), None)


def score_image(prompt: Prompt, reply: str | Exception) -> ImageScore:
    """WiScore of one image by the judge's reply; none without all three scores."""
    grades, reason = parse(reply, read_grades, "three scores from 0 to 2")
    if grades is None:
        return ImageScore(None, reason=reason)
    value = sum(WEIGHTS[name] * grade for name, grade in grades.items()) / 20
    return ImageScore(value, {prompt.row["category"]: [value]}, {"category": prompt.row["category"], **grades})


def read_grades(reply: str) -> dict[str, int] | None:
    """The three scores of a reply, the last of each if it repeats one; None if one is missing or not 0, 1 or 2."""
    pattern = r"(consistency|realism|aesthetic\s+quality)[*\s]*[:\uff1a=]?[*\s]*(\d+(?:\.\d+)?)"
    found = {" ".join(name.lower().split()): grade for name, grade in re.findall(pattern, reply, re.IGNORECASE)}
    if found.keys() != WEIGHTS.keys() or not set(found.values()) <= {"0", "1", "2"}:
        return None
    return {name: int(found[name]) for name in WEIGHTS}


def _instruction(path: str | None) -> str:
    if path is None:
        return INSTRUCTION
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = f"eval.suite.instruction={path!r} cannot be read: {first_line(error)}."
        raise ConfigError(problem, fix="name a text file.") from error
    if "{prompt}" not in text:
        raise ConfigError(f"eval.suite.instruction={path!r} does not contain {{prompt}}.", fix="write it in the file.")
    return text


def _filled(instruction: str, prompt: Prompt) -> str:
    """The instruction for a prompt; not by `format`, because the user's file may have other braces."""
    filled = {"{prompt}": prompt.text, "{explanation}": prompt.row["explanation"]}
    return re.sub(r"\{prompt\}|\{explanation\}", lambda found: filled[found[0]], instruction)
