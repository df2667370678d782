"""The large world as a dataset, in the columns of the small one; deterministic by (seed, split, index).

Splits: `train`; `test`, prompts and scenes that training does not have, of compositions that both abilities are trained
on; and the sets of `motet.shapes.large.vocabulary.SETS`, whose prompts and questions all name a composition that not
every ability is trained on: `only_drawn`, `only_asked`, `held_out`. Training images may contain any composition where a
prompt leaves it open, so that its image tokens are known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from motet.core.errors import ConfigError
from motet.shapes.large.prompts import (
    CATEGORIES,
    FEW_SPECS,
    HARD_CATEGORIES,
    prompt_text,
    sample_scene,
    sample_spec,
    sets_named,
)
from motet.shapes.large.questions import HARD_KINDS, KINDS, sample_question
from motet.shapes.large.vocabulary import (
    COLOURS,
    PROMPT_SETS,
    QUESTION_SETS,
    SETS,
    SHAPES,
    SIZES,
    SPLITS,
    sets_of,
)
from motet.shapes.options import large_options
from motet.shapes.prompts import PHRASES, Rng, Spec, choose
from motet.shapes.questions import Question, describe
from motet.shapes.render import render
from motet.shapes.rows import make_row
from motet.shapes.scene import Scene, ShapeInstance
from motet.shapes.split import in_test_split


class LargeRows:
    """Rows of the large world; endless when `size` is None. Row i depends on (seed, split, i) alone."""

    def __init__(self, split: str, seed: int, options: Mapping[str, Any], size: int | None = None) -> None:
        if split not in SPLITS:
            raise ConfigError(
                f"data.split={split!r} is not a split of the large shapes world.",
                fix=f"use one of: {', '.join(SPLITS)}.",
            )
        self.split, self.seed, self.size = split, seed, size
        self.options = large_options(options)
        trains = split == "train"  # evaluation uses the uniform distribution
        self._hard = self.options.hard_fraction if trains else 0.0
        self._kinds = self.options.parsed_question_kinds if trains else KINDS
        self._hard_kinds = tuple(kind for kind in self._kinds if kind in HARD_KINDS) or self._kinds
        self._categories = self.options.parsed_categories if trains else CATEGORIES
        self._hard_categories = tuple(c for c in self._categories if c in HARD_CATEGORIES) or self._categories
        self._open_ended = self.options.open_ended_fraction if trains else 0.5
        render(Scene(self.options.grid, ()), self.options.canvas)  # rejects an impossible canvas now, not at row 0

    def row(self, index: int) -> dict[str, Any]:
        """A prompt with its target image, and an image with a question, so that one row serves every scenario."""
        rng = np.random.default_rng([self.seed, SPLITS.index(self.split), index])
        prompt, asked = self.prompt(rng), self._question(rng)
        chain_of_thought = bool(rng.random() < self.options.cot_fraction)
        target = sample_scene(rng, prompt[1])
        return make_row(prompt, target, asked, canvas=self.options.canvas, chain_of_thought=chain_of_thought)

    def prompt(self, rng: Rng) -> tuple[str, Spec]:
        """A prompt that belongs to the split, and its spec."""
        category = choose(rng, self._hard_categories if rng.random() < self._hard else self._categories)
        while True:
            spec = sample_spec(rng, category, self.options.grid, self.options.max_objects)
            text = prompt_text(spec, choose(rng, PHRASES))
            named = sets_named(spec)
            if self.split in SETS:
                if named == {self.split}:
                    return text, spec
            elif named <= PROMPT_SETS[self.split] and self._is_ours(
                text if category in FEW_SPECS else prompt_text(spec)
            ):
                return text, spec

    def _is_ours(self, key: str) -> bool:
        return in_test_split(key) == (self.split != "train")

    def _question(self, rng: Rng) -> tuple[Scene, Question]:
        allowed = QUESTION_SETS[self.split]
        kind = choose(rng, self._hard_kinds if rng.random() < self._hard else self._kinds)
        while True:
            scene = self.scene(rng)
            if not self._is_ours(describe(scene)):
                continue
            asked = sample_question(rng, scene, kind, self._open_ended, allowed)
            if asked is None:
                continue
            question, names = asked
            named = sets_of(*names)
            if named == {self.split} if self.split in SETS else named <= allowed:
                return scene, question

    def scene(self, rng: Rng) -> Scene:
        """A random scene whose objects belong to the sets that questions of the split may name, as solutions list them.

        Three quarters of the scenes take their colours from a few, so that objects have much in common.
        """
        grid, allowed = self.options.grid, QUESTION_SETS[self.split]
        count = int(rng.integers(self.options.min_objects, self.options.max_objects + 1))
        colours, shapes = list(COLOURS), list(SHAPES)
        if rng.random() < 0.75:
            colours = [str(colour) for colour in rng.permutation(colours)[: int(rng.integers(2, 5))]]
            shapes = [str(shape) for shape in rng.permutation(shapes)[: int(rng.integers(2, 5))]]
        pairs = [(c, s) for c in colours for s in shapes if sets_of([(c, s)]) <= allowed]
        if not pairs:
            pairs = [(c, s) for c in COLOURS for s in SHAPES if sets_of([(c, s)]) <= allowed]
        cells = sorted(int(cell) for cell in rng.choice(grid * grid, count, replace=False))
        return Scene(
            grid, tuple(ShapeInstance(c // grid, c % grid, *choose(rng, pairs), size=choose(rng, SIZES)) for c in cells)
        )

    def __len__(self) -> int:
        if self.size is None:
            raise TypeError("the shapes world is endless; give data.size for a finite one")
        return self.size
