"""The shapes world as a dataset: rows in the columns of any dataset, deterministic by (seed, split, index).

Splits: `train`; `test`, validation prompts and scenes of the same distribution, disjoint from training by construction;
`held_out`, compositions (colour-shape pairs, counts of a shape) that no training prompt or question names. Training
images may contain them where a prompt leaves the colour open, so that their image tokens are known.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any

import numpy as np

from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean
from motet.shapes.prompts import (
    CATEGORIES,
    PHRASES,
    Rng,
    Spec,
    choose,
    is_held_out,
    prompt_text,
    sample_scene,
    sample_spec,
)
from motet.shapes.questions import KINDS, caption_question, describe, sample_question, solution
from motet.shapes.render import render
from motet.shapes.scene import COLOURS, SHAPES, Scene, ShapeInstance
from motet.shapes.tasks import PROMPTS, TASKS

SPLITS = ("train", "test", "held_out")
COLUMNS = (
    "prompt", "category", "spec", "target", "image", "question", "options", "answer", "kind", "solution", "scene",
)  # fmt: skip
HARD_CATEGORIES = ("position", "colour attribution")
HARD_KINDS = ("count", "relation", "order")
FRACTIONS = ("cot_fraction", "hard_fraction", "open_ended_fraction", "caption_fraction")
"""Options between 0 and 1."""
TRAIN_SPLIT_OPTIONS = (*FRACTIONS, "cite_cells", "min_objects", "question_kinds", "categories")
"""Options that change no image, question or answer of the `test` and `held_out` splits."""
_OPTION_TYPES: dict[str, tuple[str, type]] = {
    **dict.fromkeys(("question_kinds", "categories"), ("a text", str)),
    **dict.fromkeys(("canvas", "grid", "min_objects", "max_objects", "max_count"), ("an integer", int)),
    "cite_cells": ("true or false", bool),
}
_RENAMED = {
    "hard": "hard_fraction",
    "careful": "cot_fraction",
    "located": "cite_cells",
    "open_ended": "open_ended_fraction",
    "captions": "caption_fraction",
    "kinds": "question_kinds",
    "min_things": "min_objects",
    "max_things": "max_objects",
}
_TEST_DIVISOR = 5  # one in five prompts and scenes is in the test split


@dataclass(frozen=True)
class WorldOptions:
    """Options of the shapes world: `data.options` of a recipe."""

    canvas: int = 32
    """Side of the images in pixels; a multiple of `grid`."""
    grid: int = 4
    """Cells per side."""
    max_objects: int = 6
    """Maximum number of objects in an image with a question."""
    min_objects: int = 1
    """Minimum number of objects in an image with a training question."""
    max_count: int = 5
    """Largest number that a counting prompt requests."""
    cot_fraction: float = 0.5
    """Fraction of the solutions with a chain of thought that lists the image; the rest are direct answers."""
    cite_cells: bool = True
    """Whether chains of thought about existence and order name the cell of the object in question."""
    hard_fraction: float = 0.0
    """Fraction of the training prompts and questions of the hard categories and kinds; the rest are uniform."""
    open_ended_fraction: float = 0.5
    """Fraction of the training questions that are open-ended; the rest are multiple choice."""
    question_kinds: str = " ".join(KINDS)
    """Kinds of the training questions, separated by spaces; repeat a kind to double its sampling weight.

    `hard_fraction` adds no others.
    """
    categories: str = ", ".join(CATEGORIES)
    """Categories of the training prompts, separated by commas, in the same way."""

    caption_fraction: float = 0.0
    """Fraction of the training questions that request a caption, of scenes like those of questions and of prompts."""
    task: str = PROMPTS
    """Which rows: `prompts` (with questions), `reasoning`, `layouts`, `edits` or `drafts`; see `motet.shapes.tasks`."""

    @property
    def parsed_question_kinds(self) -> tuple[str, ...]:
        """The names in `question_kinds`."""
        return tuple(self.question_kinds.split())

    @property
    def parsed_categories(self) -> tuple[str, ...]:
        """The names in `categories`."""
        return tuple(name.strip() for name in self.categories.split(",") if name.strip())


def world_options(options: Mapping[str, Any]) -> WorldOptions:
    """Validate `data.options` of a recipe. Raises ConfigError naming the key."""
    known = {field.name: field for field in fields(WorldOptions)}
    for name, value in options.items():
        if name in _RENAMED:
            new = _RENAMED[name]
            raise ConfigError(f"data.options.{name} was renamed to data.options.{new}.", fix=f"write {new}.")
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the options are {', '.join(known)}."
            raise ConfigError(f"data.options has an unknown key {name!r}.", fix=hint)
        if name == "task":
            if value not in (PROMPTS, *TASKS):
                renamed = " 'plans' was renamed to 'layouts'." if value == "plans" else did_you_mean(str(value), TASKS)
                raise ConfigError(
                    f"data.options.task={value!r} is not a task of the shapes world.{renamed}",
                    fix=f"use one of: {', '.join((PROMPTS, *TASKS))}.",
                )
            continue
        expected, kind = _OPTION_TYPES.get(name, ("a number", int | float))
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise ConfigError(f"data.options.{name}={value!r} is not {expected}.", fix=f"give {expected}.")
    chosen = WorldOptions(**options)
    _check_ranges(chosen)
    return chosen


def _check_ranges(chosen: WorldOptions) -> None:
    if chosen.grid > 16 or chosen.max_objects > min(6, chosen.grid**2) or chosen.max_count > min(6, chosen.grid**2):
        raise ConfigError(
            f"data.options has max_objects={chosen.max_objects} and max_count={chosen.max_count} on a {chosen.grid} x "
            f"{chosen.grid} grid.",
            fix="use a grid of 2 to 16, and at most six objects and no more than there are cells.",
        )
    if not 1 <= chosen.min_objects <= chosen.max_objects:
        raise ConfigError(
            f"data.options.min_objects={chosen.min_objects} is not between 1 and max_objects={chosen.max_objects}.",
            fix=f"give 1 to {chosen.max_objects}.",
        )
    for name, given, known in (
        ("question_kinds", chosen.parsed_question_kinds, KINDS),
        ("categories", chosen.parsed_categories, CATEGORIES),
    ):
        unknown = [entry for entry in given if entry not in known]
        if unknown or not given:
            problem = f"has the unknown {unknown[0]!r}" if unknown else "has no names"
            raise ConfigError(
                f"data.options.{name}={getattr(chosen, name)!r} {problem}.",
                fix=f"use some of: {(' ' if name == 'question_kinds' else ', ').join(known)}.",
            )
    for name in FRACTIONS:
        if not 0 <= getattr(chosen, name) <= 1:
            raise ConfigError(
                f"data.options.{name}={getattr(chosen, name)} must be between 0 and 1.", fix="give 0 to 1."
            )


class ShapesRows:
    """Rows of the shapes world; endless when `size` is None. Row i depends on (seed, split, i) alone."""

    def __init__(self, split: str, seed: int, options: Mapping[str, Any], size: int | None = None) -> None:
        if split not in SPLITS:
            raise ConfigError(
                f"data.split={split!r} is not a split of the shapes world.", fix=f"use one of: {', '.join(SPLITS)}."
            )
        self.split, self.seed, self.size = split, seed, size
        self.options = world_options(options)
        trains = split == "train"  # evaluation uses the uniform distribution
        self._hard = self.options.hard_fraction if trains else 0.0
        self._kinds = self.options.parsed_question_kinds if trains else KINDS
        self._hard_kinds = tuple(kind for kind in self._kinds if kind in HARD_KINDS) or self._kinds
        self._categories = self.options.parsed_categories if trains else CATEGORIES
        self._hard_categories = tuple(c for c in self._categories if c in HARD_CATEGORIES) or self._categories
        self._open_ended = self.options.open_ended_fraction if trains else 0.5
        self._caption_fraction = self.options.caption_fraction if trains else 0.0
        self._min_objects = self.options.min_objects if trains else 1
        render(Scene(self.options.grid, ()), self.options.canvas)  # rejects an impossible canvas now, not at row 0
        self.columns = COLUMNS if self.options.task == PROMPTS else tuple(self.row(0))

    def row(self, index: int) -> dict[str, Any]:
        """A prompt with its target image, and an image with a question, so that one row serves every scenario.

        Another `task` has columns of its own.
        """
        key = [self.seed, SPLITS.index(self.split), index]
        if self.options.task != PROMPTS:
            number = 1 + list(TASKS).index(self.options.task)  # tasks do not share their random numbers
            return TASKS[self.options.task](self, np.random.default_rng([*key, number]))
        rng = np.random.default_rng(key)
        prompt, spec = self.prompt(rng)
        scene, question = self._question(rng)
        chain_of_thought = bool(rng.random() < self.options.cot_fraction)
        return {
            "prompt": prompt,
            "category": spec["category"],
            "spec": spec,
            "target": render(sample_scene(rng, spec), self.options.canvas),
            "image": render(scene, self.options.canvas),
            "question": question.text,
            "options": list(question.options),
            "answer": question.answer,
            "kind": question.kind,
            "solution": solution(question, scene, chain_of_thought),
            "scene": describe(scene),
        }

    def prompt(self, rng: Rng) -> tuple[str, Spec]:
        """A prompt that belongs to the split, and its spec."""
        while True:
            category = choose(rng, self._hard_categories if rng.random() < self._hard else self._categories)
            spec = sample_spec(rng, category, self.options.grid, self.options.max_count)
            text = prompt_text(spec, choose(rng, PHRASES))
            if is_held_out(spec) != (self.split == "held_out"):
                continue
            # Categories with many specs are split by spec, those with few (four single shapes) by the prompt's wording.
            key = prompt_text(spec) if category in ("position", "colour attribution") else text
            if self.split == "held_out" or _in_test_split(key) == (self.split == "test"):
                return text, spec

    @property
    def open_ended_fraction(self) -> float:
        """Fraction of open-ended questions; one half in the test splits."""
        return self._open_ended

    def question_kind(self, rng: Rng) -> str:
        """A random kind of question, with the weights of the options."""
        return choose(rng, self._hard_kinds if rng.random() < self._hard else self._kinds)

    def belongs_to_split(self, *keys: str) -> bool:
        """Whether all items with these keys belong to the split: an item is either for training or for validation."""
        return all(_in_test_split(key) == (self.split != "train") for key in keys)

    def _question(self, rng: Rng) -> tuple[Scene, Any]:
        wants_caption = self._caption_fraction > 0 and rng.random() < self._caption_fraction
        while True:
            kind = self.question_kind(rng)
            as_prompts = wants_caption and rng.random() < 0.5
            scene = self._prompted_scene(rng) if as_prompts else self.scene(rng)
            if _in_test_split(describe(scene)) != (self.split != "train"):
                continue
            ask = caption_question(scene) if wants_caption else None
            cite_cells = self.options.cite_cells
            question = ask or sample_question(rng, scene, kind, self.open_ended_fraction, cite_cells=cite_cells)
            if question is not None and question.held_out == (self.split == "held_out"):
                return scene, question

    def scene(self, rng: Rng) -> Scene:
        """A random scene of any content."""
        grid, names = self.options.grid, [(c, s) for c in COLOURS for s in SHAPES]
        count = int(rng.integers(self._min_objects, self.options.max_objects + 1))
        cells = rng.choice(grid * grid, count, replace=False)
        return Scene(
            grid, tuple(sorted(ShapeInstance(int(c) // grid, int(c) % grid, *choose(rng, names)) for c in cells))
        )

    def _prompted_scene(self, rng: Rng) -> Scene:
        spec = sample_spec(rng, choose(rng, CATEGORIES), self.options.grid, self.options.max_count)
        return sample_scene(rng, spec)

    def __len__(self) -> int:
        if self.size is None:
            raise TypeError("the shapes world is endless; give data.size for a finite one")
        return self.size


def _in_test_split(key: str) -> bool:
    return zlib.crc32(key.encode()) % _TEST_DIVISOR == 0
