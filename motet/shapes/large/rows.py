"""The large world as a dataset, in the columns of the small one; deterministic by (seed, split, index).

Splits: `train`; `test`, prompts and scenes that training does not have, of compositions that both abilities are trained
on; and the sets of `motet.shapes.large.vocabulary.SETS`, whose prompts and questions all name a composition that not
every ability is trained on: `only_drawn`, `only_asked`, `held_out`. Training images may contain any composition where a
prompt leaves it open, so that its image tokens are known.

Each task has the sets of the abilities that it trains. Prompts may name those of PROMPT_SETS; questions, whether about
an image or about a text, those of QUESTION_SETS. Captions, layouts, edits and drafts need both abilities, and they
neither name nor show a composition that only one is trained on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

from motet.shapes.base import World
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
from motet.shapes.options import PROMPTS, LargeOptions, large_options
from motet.shapes.prompts import PHRASES, Rng, Spec, choose
from motet.shapes.questions import Question, caption_question, describe
from motet.shapes.render import VOCABULARIES
from motet.shapes.rows import make_row
from motet.shapes.scene import Scene, ShapeInstance


class LargeRows(World[LargeOptions]):
    """Rows of the large world; endless when `size` is None. Row i depends on (seed, split, i) alone."""

    title = "the large shapes world"
    vocabulary = VOCABULARIES["large"]
    splits, kinds, hard_kinds = SPLITS, KINDS, HARD_KINDS
    categories, hard_categories = CATEGORIES, HARD_CATEGORIES

    def __init__(self, split: str, seed: int, options: Mapping[str, Any], size: int | None = None) -> None:
        super().__init__(split, seed, large_options(options), size)
        self._both = PROMPT_SETS[split] & QUESTION_SETS[split]
        draws = self.options.task == PROMPTS
        self._prompt_sets = PROMPT_SETS[split] if draws else self._both
        self._target_sets = set(SETS) if draws else self._both
        trains = split == "train"
        self._open_shapes = self.options.open_shape_fraction if trains else 0.0
        self._ordered_fraction = self.options.ordered_fraction if trains else 0.0
        self.short_cot_fraction = self.options.short_cot_fraction if trains else 0.0

    def row(self, index: int) -> dict[str, Any]:
        return make_row(self, index)

    def prompt(self, rng: Rng) -> tuple[str, Spec]:
        category = self.category(rng)
        while True:
            spec = sample_spec(rng, category, self.options.grid, self.options.max_objects, self._open_shapes)
            text = prompt_text(spec, choose(rng, PHRASES))
            named = sets_named(spec)
            if self.split in SETS:
                if named == {self.split}:
                    return text, spec
            elif named <= self._prompt_sets and self.belongs_to_split(
                text if category in FEW_SPECS else prompt_text(spec)
            ):
                return text, spec

    def target(self, rng: Rng, spec: Spec) -> Scene:
        ordered = self._ordered_fraction > 0 and bool(rng.random() < self._ordered_fraction)
        return sample_scene(rng, spec, self._target_sets, ordered=ordered)

    def question(self, rng: Rng) -> tuple[Scene, Question]:
        if self.wants_caption(rng):
            return self._caption(rng)
        allowed, kind = QUESTION_SETS[self.split], self.question_kind(rng)
        while True:
            scene = self._scene(rng, allowed)
            if not self.belongs_to_split(describe(scene)):
                continue
            asked = sample_question(rng, scene, kind, self.open_ended_fraction, allowed)
            if asked is None:
                continue
            question, names = asked
            named = sets_of(*names)
            if named == {self.split} if self.split in SETS else named <= allowed:
                return scene, question

    def text_question(self, rng: Rng) -> tuple[Scene, Question]:
        return self.question(rng)

    def _caption(self, rng: Rng) -> tuple[Scene, Question]:
        """The request for a caption, half of them of scenes like those of prompts."""
        as_prompt = rng.random() < 0.5
        while True:
            scene = self.scene(rng)
            if as_prompt:
                spec = sample_spec(rng, choose(rng, CATEGORIES), self.options.grid, self.options.max_objects)
                if not sets_named(spec) <= self._both:
                    continue
                scene = sample_scene(rng, spec, self._both)
            if self.belongs_to_split(describe(scene)):
                return scene, caption_question(scene)

    def scene(self, rng: Rng) -> Scene:
        return self._scene(rng, self._both)

    def _scene(self, rng: Rng, allowed: Collection[str]) -> Scene:
        """A random scene of objects that belong to no sets but the allowed ones.

        Three quarters of the scenes take their colours from a few, so that objects have much in common.
        """
        grid = self.options.grid
        count = int(rng.integers(self.options.min_objects, self.options.max_objects + 1))
        colours, shapes = list(COLOURS), list(SHAPES)
        if rng.random() < 0.75:
            colours = [str(colour) for colour in rng.permutation(colours)[: int(rng.integers(2, 5))]]
            shapes = [str(shape) for shape in rng.permutation(shapes)[: int(rng.integers(2, 5))]]
        known = _pairs(frozenset(allowed))
        pairs = [(c, s) for c in colours for s in shapes if (c, s) in known] or list(known)
        cells = sorted(int(cell) for cell in rng.choice(grid * grid, count, replace=False))
        return Scene(
            grid, tuple(ShapeInstance(c // grid, c % grid, *choose(rng, pairs), size=choose(rng, SIZES)) for c in cells)
        )

    def may_list(self, scene: Scene) -> bool:
        return _sets(scene.objects) <= self._both

    def may_count(self, scene: Scene) -> bool:
        """No set of the large world holds out a number of objects."""
        return True

    def may_show_edit(self, before: Scene, after: Scene) -> bool:
        shown = describe(before), describe(after)
        return self.may_list(before) and self.may_list(after) and self.belongs_to_split(*shown)

    def may_instruct(self, there: Sequence[ShapeInstance], back: Sequence[ShapeInstance]) -> bool:
        return self.split not in SETS or self.split in _sets(there)


@lru_cache
def _pairs(allowed: frozenset[str]) -> dict[tuple[str, str], None]:
    """Pairs of a colour and a shape that belong to no sets but the allowed ones, in order."""
    return {(c, s): None for c in COLOURS for s in SHAPES if sets_of([(c, s)]) <= allowed}


def _sets(objects: Sequence[ShapeInstance]) -> set[str]:
    return sets_of((obj.colour, obj.shape) for obj in objects)
