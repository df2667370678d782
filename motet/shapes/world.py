"""The shapes world as a dataset: rows in the columns of any dataset, deterministic by (seed, split, index).

Splits: `train`; `test`, validation prompts and scenes of the same distribution, disjoint from training by construction;
`held_out`, compositions (colour-shape pairs, counts of a shape) that no training prompt or question names. Training
images may contain them where a prompt leaves the colour open, so that their image tokens are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean
from motet.shapes.large.rows import LargeRows
from motet.shapes.large.vocabulary import SPLITS as LARGE_SPLITS
from motet.shapes.options import world_options
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
from motet.shapes.questions import KINDS, caption_question, describe, sample_question
from motet.shapes.render import render
from motet.shapes.rows import make_row
from motet.shapes.scene import COLOURS, SHAPES, Scene, ShapeInstance
from motet.shapes.split import in_test_split
from motet.shapes.tasks import PROMPTS, TASKS

SPLITS = ("train", "test", "held_out")
COLUMNS = (
    "prompt", "category", "spec", "target", "image", "question", "options", "answer", "kind", "solution", "scene",
)  # fmt: skip
HARD_CATEGORIES = ("position", "colour attribution")
HARD_KINDS = ("count", "relation", "order")


def open_world(split: str, seed: int, options: Mapping[str, Any], size: int | None = None) -> ShapesRows | LargeRows:
    """The rows of the world that `options` name: `world: small`, the default, or `world: large`."""
    world, own = options.get("world", "small"), {name: value for name, value in options.items() if name != "world"}
    if world not in ROWS:
        raise ConfigError(
            f"data.options.world={world!r} is not a shapes world.{did_you_mean(str(world), ROWS)}",
            fix=f"use one of: {', '.join(ROWS)}.",
        )
    return ROWS[world](split, seed, own, size)


def evaluation_splits(options: Mapping[str, Any]) -> tuple[str, ...]:
    """The splits of a world on which models are measured: `test` and those of held-out compositions."""
    return tuple(split for split in (LARGE_SPLITS if options.get("world") == "large" else SPLITS) if split != "train")


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
        prompt, asked = self.prompt(rng), self._question(rng)
        chain_of_thought = bool(rng.random() < self.options.cot_fraction)
        target = sample_scene(rng, prompt[1])
        return make_row(prompt, target, asked, canvas=self.options.canvas, chain_of_thought=chain_of_thought)

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
            if self.split == "held_out" or in_test_split(key) == (self.split == "test"):
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
        return all(in_test_split(key) == (self.split != "train") for key in keys)

    def _question(self, rng: Rng) -> tuple[Scene, Any]:
        wants_caption = self._caption_fraction > 0 and rng.random() < self._caption_fraction
        while True:
            kind = self.question_kind(rng)
            as_prompts = wants_caption and rng.random() < 0.5
            scene = self._prompted_scene(rng) if as_prompts else self.scene(rng)
            if in_test_split(describe(scene)) != (self.split != "train"):
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


ROWS: dict[str, type[ShapesRows] | type[LargeRows]] = {"small": ShapesRows, "large": LargeRows}
