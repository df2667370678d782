"""Options of the shapes worlds, `data.options` of a recipe, and their validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from typing import Any, TypeVar

from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean
from motet.shapes.large import prompts as large_prompts
from motet.shapes.large import questions as large_questions
from motet.shapes.large.vocabulary import NUMBERS
from motet.shapes.prompts import CATEGORIES
from motet.shapes.questions import KINDS

PROMPTS = "prompts"
"""The task with a prompt, and an image with a question."""
TASKS = ("reasoning", "layouts", "edits", "drafts")
"""The other tasks, see `motet.shapes.tasks`. The position of a task seeds its rows: append, never reorder."""
FRACTIONS = (
    "cot_fraction",
    "short_cot_fraction",
    "hard_fraction",
    "open_ended_fraction",
    "caption_fraction",
    "ordered_fraction",
    "open_shape_fraction",
)
"""Options between 0 and 1."""
TRAIN_SPLIT_OPTIONS = (*FRACTIONS, "cite_cells", "min_objects", "question_kinds", "categories")
"""Options that change no image, question or answer of the splits for evaluation."""
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

Options = TypeVar("Options", "WorldOptions", "LargeOptions")


@dataclass(frozen=True)
class WorldOptions:
    """Options of the small shapes world: `data.options` of a recipe."""

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
        return _names(self.categories)


@dataclass(frozen=True)
class LargeOptions:
    """Options of the large world, beside `world: large`. Those of the same name mean the same."""

    canvas: int = 64
    """Side of the images in pixels; a multiple of `grid`."""
    grid: int = 4
    """Cells per side."""
    max_objects: int = large_prompts.MAX_OBJECTS
    """Maximum number of objects in an image with a question."""
    min_objects: int = 2
    """Minimum number of objects in an image with a question."""
    ordered_fraction: float = 0.0
    """Fraction of the training targets whose objects are in the first cells, in reading order, that satisfy the prompt;
    the objects of the rest are anywhere."""
    open_shape_fraction: float = 0.0
    """Fraction of the groups of objects in training prompts that name a colour and no shape, such as `two red things`.

    Groups of a prompt that overlap are drawn again: of 0.3, a quarter of the groups is left. The categories
    `comparison` and `negation` have no such groups.
    """
    cot_fraction: float = 0.5
    """Fraction of the solutions with a chain of thought; the rest are direct answers."""
    short_cot_fraction: float = 0.0
    """Fraction of these chains of thought, in training, that name only what the question is about; the rest list the
    image first, as critiques of `drafts` always do."""
    hard_fraction: float = 0.0
    """Fraction of the training prompts and questions of the hard categories and kinds; the rest are uniform."""
    open_ended_fraction: float = 0.5
    """Fraction of the training questions that are open-ended; the rest are multiple choice."""
    question_kinds: str = " ".join(large_questions.KINDS)
    """Kinds of the training questions, separated by spaces; repeat a kind to double its sampling weight."""
    categories: str = ", ".join(large_prompts.CATEGORIES)
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
        return _names(self.categories)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def world_options(options: Mapping[str, Any]) -> WorldOptions:
    """Validate `data.options` of a recipe for the small world. Raises ConfigError naming the key."""
    for name in options:
        if name in _RENAMED:
            new = _RENAMED[name]
            raise ConfigError(f"data.options.{name} was renamed to data.options.{new}.", fix=f"write {new}.")
    chosen = _read(WorldOptions, options)
    _check_numbers(chosen, 6, chosen.max_count)
    _check_names(chosen, KINDS, CATEGORIES)
    return chosen


def large_options(options: Mapping[str, Any]) -> LargeOptions:
    """Validate `data.options` of a recipe for the large world. Raises ConfigError naming the key."""
    chosen = _read(LargeOptions, options)
    _check_numbers(chosen, large_prompts.MAX_OBJECTS)
    if chosen.grid < 3 or chosen.max_objects < 4:
        raise ConfigError(
            f"data.options has max_objects={chosen.max_objects} on a {chosen.grid} x {chosen.grid} grid: chains of "
            "relations have no room there.",
            fix="use a grid of 3 or more, and max_objects of 4 or more.",
        )
    _check_names(chosen, large_questions.KINDS, large_prompts.CATEGORIES)
    return chosen


def _read(kind: type[Options], options: Mapping[str, Any]) -> Options:
    known = {field.name: field for field in fields(kind)}
    for name, value in options.items():
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
        expected, types = _OPTION_TYPES.get(name, ("a number", int | float))
        if not isinstance(value, types) or isinstance(value, bool) != (types is bool):
            raise ConfigError(f"data.options.{name}={value!r} is not {expected}.", fix=f"give {expected}.")
    return kind(**options)


def _check_numbers(chosen: WorldOptions | LargeOptions, most: int, max_count: int = 0) -> None:
    if chosen.grid > 16 or max(chosen.max_objects, max_count) > min(most, chosen.grid**2):
        counts = f" and max_count={max_count}" if max_count else ""
        raise ConfigError(
            f"data.options has max_objects={chosen.max_objects}{counts} on a {chosen.grid} x {chosen.grid} grid.",
            fix=f"use a grid of 2 to 16, and at most {NUMBERS[most]} objects and no more than there are cells.",
        )
    if not 1 <= chosen.min_objects <= chosen.max_objects:
        raise ConfigError(
            f"data.options.min_objects={chosen.min_objects} is not between 1 and max_objects={chosen.max_objects}.",
            fix=f"give 1 to {chosen.max_objects}.",
        )
    for name in FRACTIONS:
        if not 0 <= getattr(chosen, name, 0) <= 1:
            raise ConfigError(
                f"data.options.{name}={getattr(chosen, name)} must be between 0 and 1.", fix="give 0 to 1."
            )


def _check_names(chosen: WorldOptions | LargeOptions, kinds: Sequence[str], categories: Sequence[str]) -> None:
    for name, given, known in (
        ("question_kinds", chosen.parsed_question_kinds, kinds),
        ("categories", chosen.parsed_categories, categories),
    ):
        unknown = [entry for entry in given if entry not in known]
        if unknown or not given:
            problem = f"has the unknown {unknown[0]!r}" if unknown else "has no names"
            raise ConfigError(
                f"data.options.{name}={getattr(chosen, name)!r} {problem}.",
                fix=f"use some of: {(' ' if name == 'question_kinds' else ', ').join(known)}.",
            )
