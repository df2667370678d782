"""The shapes world as a dataset: rows in the columns of any dataset, deterministic by (seed, split, index).

Splits: `train`; `test`, held-back prompts and scenes of the same kind, disjoint from training by construction;
`held_out`, compositions (colour-shape pairs, counts of a shape) that no training prompt or question names. Training
pictures may hold them where a prompt leaves the colour open, so that their image codes are known.
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
SHARES = ("careful", "located", "hard", "open_ended", "captions")
"""Options between 0 and 1."""
TRAIN_SPLIT_OPTIONS = (*SHARES, "min_things", "kinds", "categories")
"""Options that change no picture, question or answer of the `test` and `held_out` splits."""
_FORMS: dict[str, tuple[str, type]] = {
    **dict.fromkeys(("kinds", "categories"), ("text", str)),
    **dict.fromkeys(("canvas", "grid", "min_things", "max_things", "max_count"), ("a whole number", int)),
}
_TEST_SHARE = 5  # one in five prompts and scenes is held back for the test split


@dataclass(frozen=True)
class WorldOptions:
    """How large the pictures are and how full."""

    canvas: int = 32
    """Side of the pictures in pixels; a multiple of `grid`."""
    grid: int = 4
    """Cells per side."""
    max_things: int = 6
    """Most things in a picture that questions are about."""
    min_things: int = 1
    """Fewest things in a picture that training questions are about."""
    max_count: int = 5
    """Largest number that a counting prompt asks for."""
    careful: float = 0.5
    """Share of the solutions whose thought lists the picture; the rest are glances."""
    located: float | int = 1
    """Whether (1 or 0) careful thoughts about existence and order name the cell of the thing that is asked about."""
    hard: float = 0.0
    """Share of the training prompts and questions that are of the hard sorts; the rest are of all sorts, evenly."""
    open_ended: float = 0.5
    """Share of the training questions that are open-ended; the rest are multiple choice."""
    kinds: str = " ".join(KINDS)
    """Kinds of the training questions, with spaces between them, one named twice asked twice as often; `hard` does not
    widen them."""
    categories: str = ", ".join(CATEGORIES)
    """Categories of the training prompts, with commas between them, in the same way."""

    captions: float = 0.0
    """Share of the training questions that ask for a caption, of scenes like those of questions and of prompts."""
    task: str = PROMPTS
    """Which rows: `prompts` (with questions), `reasoning`, `plans`, `edits` or `drafts`; see `motet.shapes.tasks`."""

    @property
    def all_kinds(self) -> tuple[str, ...]:
        """The names in `kinds`."""
        return tuple(self.kinds.split())

    @property
    def all_categories(self) -> tuple[str, ...]:
        """The names in `categories`."""
        return tuple(name.strip() for name in self.categories.split(",") if name.strip())


def world_options(options: Mapping[str, Any]) -> WorldOptions:
    """Validate `data.options` of a recipe."""
    known = {field.name: field for field in fields(WorldOptions)}
    for name, value in options.items():
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"the options are {', '.join(known)}."
            raise ConfigError(f"data.options has an unknown key {name!r}.", fix=hint)
        if name == "task":
            if value not in (PROMPTS, *TASKS):
                raise ConfigError(
                    f"data.options.task={value!r} is no task of the shapes world.{did_you_mean(str(value), TASKS)}",
                    fix=f"use one of {', '.join((PROMPTS, *TASKS))}.",
                )
            continue
        wanted, kind = _FORMS.get(name, ("a number", int | float))
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ConfigError(f"data.options.{name}={value!r} is not {wanted}.", fix=f"give {wanted}.")
    chosen = WorldOptions(**options)
    if chosen.grid > 16 or chosen.max_things > min(6, chosen.grid**2) or chosen.max_count > min(6, chosen.grid**2):
        raise ConfigError(
            f"data.options asks for {chosen.max_things} things and counts to {chosen.max_count} on a {chosen.grid} x "
            f"{chosen.grid} grid.",
            fix="use a grid of 2 to 16 and at most six things, no more than there are cells.",
        )
    if not 1 <= chosen.min_things <= chosen.max_things:
        raise ConfigError(
            f"data.options.min_things={chosen.min_things} is not between 1 and max_things={chosen.max_things}.",
            fix=f"give 1 to {chosen.max_things}.",
        )
    if chosen.located not in (0, 1):
        raise ConfigError(f"data.options.located={chosen.located} is not 0 or 1.", fix="give one of them.")
    for name, given, known in (
        ("kinds", chosen.all_kinds, KINDS),
        ("categories", chosen.all_categories, CATEGORIES),
    ):
        unknown = [entry for entry in given if entry not in known]
        if unknown or not given:
            raise ConfigError(
                f"data.options.{name}={getattr(chosen, name)!r} names {unknown[0] if unknown else 'nothing'}.",
                fix=f"use some of {(' ' if name == 'kinds' else ', ').join(known)}.",
            )
    for name in SHARES:
        if not 0 <= getattr(chosen, name) <= 1:
            raise ConfigError(f"data.options.{name}={getattr(chosen, name)} is not a share.", fix="give 0 to 1.")
    return chosen


class ShapesRows:
    """Rows of the shapes world; endless when `size` is None. Row i depends on (seed, split, i) alone."""

    def __init__(self, split: str, seed: int, options: Mapping[str, Any], size: int | None = None) -> None:
        if split not in SPLITS:
            raise ConfigError(f"data.split={split!r} is not a split of the shapes world.", fix=f"use one of {SPLITS}.")
        self.split, self.seed, self.size = split, seed, size
        self.options = world_options(options)
        trains = split == "train"  # what is measured stays even
        self._hard = self.options.hard if trains else 0.0
        self._kinds = self.options.all_kinds if trains else KINDS
        self._hard_kinds = tuple(kind for kind in self._kinds if kind in HARD_KINDS) or self._kinds
        self._categories = self.options.all_categories if trains else CATEGORIES
        self._hard_categories = tuple(c for c in self._categories if c in HARD_CATEGORIES) or self._categories
        self._open_ended = self.options.open_ended if trains else 0.5
        self._captions = self.options.captions if trains else 0.0
        self._min_things = self.options.min_things if trains else 1
        render(Scene(self.options.grid, ()), self.options.canvas)  # refuses an impossible canvas now, not at row 0
        self.columns = COLUMNS if self.options.task == PROMPTS else tuple(self.row(0))

    def row(self, index: int) -> dict[str, Any]:
        """A prompt with a demonstration, and a picture with a question: one row serves drawing, answering and duets.

        Of another `task` its own columns.
        """
        key = [self.seed, SPLITS.index(self.split), index]
        if self.options.task != PROMPTS:
            number = 1 + list(TASKS).index(self.options.task)  # tasks do not share their random numbers
            return TASKS[self.options.task](self, np.random.default_rng([*key, number]))
        rng = np.random.default_rng(key)
        prompt, spec = self.prompt(rng)
        scene, question = self._question(rng)
        careful = bool(rng.random() < self.options.careful)
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
            "solution": solution(question, scene, careful),
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
            # The rich categories are split by what they say, the poor ones (four single shapes) by how they say it.
            key = prompt_text(spec) if category in ("position", "colour attribution") else text
            if self.split == "held_out" or _held_back(key) == (self.split == "test"):
                return text, spec

    @property
    def open_ended(self) -> float:
        """Share of open-ended questions; even where it is measured."""
        return self._open_ended

    def kind(self, rng: Rng) -> str:
        """A kind of question, tilted as the options say."""
        return choose(rng, self._hard_kinds if rng.random() < self._hard else self._kinds)

    def keeps(self, *keys: str) -> bool:
        """Whether the split may show what these keys stand for: each key is either trained on or held back."""
        return all(_held_back(key) == (self.split != "train") for key in keys)

    def _question(self, rng: Rng) -> tuple[Scene, Any]:
        wants_caption = self._captions > 0 and rng.random() < self._captions
        while True:
            kind = self.kind(rng)
            as_prompts = wants_caption and rng.random() < 0.5
            scene = self._prompted_scene(rng) if as_prompts else self.scene(rng)
            if _held_back(describe(scene)) != (self.split != "train"):
                continue
            ask = caption_question(scene) if wants_caption else None
            question = ask or sample_question(rng, scene, kind, self.open_ended, located=self.options.located == 1)
            if question is not None and question.held_out == (self.split == "held_out"):
                return scene, question

    def scene(self, rng: Rng) -> Scene:
        """A random scene of any content."""
        grid, names = self.options.grid, [(c, s) for c in COLOURS for s in SHAPES]
        count = int(rng.integers(self._min_things, self.options.max_things + 1))
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


def _held_back(key: str) -> bool:
    return zlib.crc32(key.encode()) % _TEST_SHARE == 0
