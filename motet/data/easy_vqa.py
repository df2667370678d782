"""The data set easy-VQA as a source: `data.source: easy_vqa`, splits `train` and `test` as its package has them.

Victor Zhou, MIT licence, https://github.com/vzhou842/easy-VQA: 4,000 and 1,000 images of 64 pixels, each of one shape,
with 38,575 and 9,673 questions. The package `easy-vqa` contains the images. It has no captions: a caption is made of
the colour and the shape that an image's own questions and answers name; 3,542 and 880 images have both.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from motet.config.schema import DataConfig
from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean
from motet.data.files import Row
from motet.data.sources import Source
from motet.shapes.easy_vqa import COLOURS, SHAPES

SPLITS = ("train", "test")
TASKS = ("both", "questions", "captions")
PHRASES = ("a {}", "one {}", "an image of a {}")
"""The wordings of a caption as a prompt; an image has one of them."""
_NEGATIONS = frozenset({"not", "no"})


@dataclass(frozen=True)
class EasyVqaOptions:
    """Options of the source: `data.options` of a recipe."""

    task: str = "both"
    """Which rows: `questions`, one for each question; `captions`, one for each image with a caption; `both`, one for
    each question about an image with a caption."""
    cot_fraction: float = 0.5
    """Fraction of the solutions that describe the image before the answer; the rest are direct answers."""


def easy_vqa_options(options: Mapping[str, Any]) -> EasyVqaOptions:
    """Validate `data.options`. Raises ConfigError naming the key."""
    known = [field.name for field in fields(EasyVqaOptions)]
    for name in options:
        if name not in known:
            raise ConfigError(
                f"data.options has an unknown key {name!r}.{did_you_mean(name, known)}",
                fix=f"the options of easy_vqa are {', '.join(known)}.",
            )
    task, fraction = options.get("task", EasyVqaOptions.task), options.get("cot_fraction", EasyVqaOptions.cot_fraction)
    if task not in TASKS:
        raise ConfigError(f"data.options.task={task!r} is unknown.", fix=f"use one of: {', '.join(TASKS)}.")
    if not isinstance(fraction, int | float) or isinstance(fraction, bool) or not 0 <= fraction <= 1:
        raise ConfigError(f"data.options.cot_fraction={fraction!r} is not a number from 0 to 1.", fix="give 0 to 1.")
    return EasyVqaOptions(task, float(fraction))


@dataclass(frozen=True)
class _Split:
    """The questions (text, answer, image) of a split, its images, and what their questions say that they show."""

    questions: tuple[tuple[str, str, int], ...]
    images: dict[int, Image.Image]
    captions: dict[int, tuple[str, str]]


def open_easy_vqa(config: DataConfig, seed: int) -> Source:
    """The rows of a split, in the order of the package. `seed` chooses which solutions describe the image first.

    Columns of questions: question, image, answer, kind, solution; of captions: prompt, colour, shape, target (the
    image); of both: all of them, about one image. Raises ConfigError for a missing package, split or option.
    """
    options = easy_vqa_options(config.options)
    if config.split not in SPLITS:
        raise ConfigError(
            f"data.split={config.split!r} is not a split of easy_vqa.{did_you_mean(config.split, SPLITS)}",
            fix=f"use one of: {', '.join(SPLITS)}.",
        )
    split = _read_split(config.split)
    if options.task == "captions":
        rows: Sequence[tuple[str, str, int]] = [("", "", image) for image in split.captions]
    else:
        rows = [row for row in split.questions if options.task == "questions" or row[2] in split.captions]
    name = f"easy_vqa ({config.split})"

    def read(i: int) -> Row:
        image = rows[i][2]
        return texts_of(i) | dict.fromkeys(_image_columns(options.task), split.images[image])

    def texts_of(i: int) -> Row:
        question, answer, image = rows[i]
        caption = split.captions.get(image)
        row: Row = {} if options.task == "questions" else _caption_columns(image, *split.captions[image])
        if options.task != "captions":
            described = caption if _fraction_of(f"{seed} {i} {question}") < options.cot_fraction else None
            row |= {"question": question, "answer": answer, "kind": question_kind(question, answer)}
            row["solution"] = solution(answer, described)
        return row

    def texts() -> Iterator[Row]:
        return map(texts_of, range(len(rows)))

    columns = tuple(read(0))
    return Source(name, columns, len(rows), Path.cwd(), read, lambda i: f"Row {i} of {name}", texts)


def _image_columns(task: str) -> tuple[str, ...]:
    return {"both": ("target", "image"), "questions": ("image",), "captions": ("target",)}[task]


def _caption_columns(image: int, colour: str, shape: str) -> Row:
    prompt = PHRASES[zlib.crc32(str(image).encode()) % len(PHRASES)].format(f"{colour} {shape}")
    return {"prompt": prompt, "colour": colour, "shape": shape}


def _fraction_of(key: str) -> float:
    """A number in [0, 1) that depends on the key alone."""
    return zlib.crc32(key.encode()) / 2**32


def question_kind(question: str, answer: str) -> str:
    """`shape`, `colour`, `presence` (is there a ...?) or `absence` (is there not a ...?)."""
    if answer in SHAPES:
        return "shape"
    if answer in COLOURS:
        return "colour"
    return "absence" if _NEGATIONS & set(question.split()) else "presence"


def solution(answer: str, described: tuple[str, str] | None) -> str:
    """An answer for supervised training, after a thought in CoRL's format if the image is `described`."""
    thought = "" if described is None else f"<think> a {' '.join(described)}, so {answer}</think>"
    return f"{thought}<answer> {answer}</answer>"


def captions_of(questions: Sequence[tuple[str, str, int]]) -> dict[int, tuple[str, str]]:
    """Image -> (colour, shape), for images whose questions and answers name both.

    A question names what it presupposes (`what color is the circle?`), its answer, and what it asks for if the answer
    confirms that (`is there a red shape?`, yes; `is there not a red shape?`, no).
    """
    named: dict[int, set[str]] = {}
    for question, answer, image in questions:
        words = set(question.rstrip("?").split())
        if answer not in ("yes", "no"):
            named.setdefault(image, set()).update(words | {answer})
        elif (answer == "yes") != bool(words & _NEGATIONS):
            named.setdefault(image, set()).update(words)
    found = {
        image: ([colour for colour in COLOURS if colour in words], [shape for shape in SHAPES if shape in words])
        for image, words in sorted(named.items())
    }
    return {image: (colour[0], shape[0]) for image, (colour, shape) in found.items() if colour and shape}


@lru_cache(maxsize=2)
def _read_split(split: str) -> _Split:
    try:
        import easy_vqa
    except ImportError:
        raise ConfigError(
            "data.source='easy_vqa' needs the package easy-vqa.", fix="pip install 'motet[easyvqa]'."
        ) from None
    texts, answers, images = getattr(easy_vqa, f"get_{split}_questions")()
    questions = tuple(zip(texts, answers, images, strict=True))
    files = getattr(easy_vqa, f"get_{split}_image_paths")()
    loaded = {}
    for number, file in files.items():
        with Image.open(file) as image:
            loaded[number] = image.convert("RGB")
    return _Split(questions, loaded, captions_of(questions))
