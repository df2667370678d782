"""The shapes world as a dataset: rows in the columns of any dataset, deterministic by (seed, split, index).

Splits: `train`; `test`, validation prompts and scenes of the same distribution, disjoint from training by construction;
`held_out`, compositions (colour-shape pairs, counts of a shape) that no training prompt or question names. Training
images may contain them where a prompt leaves the colour open, so that their image tokens are known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean
from motet.shapes.base import COLUMNS, World
from motet.shapes.large.rows import LargeRows
from motet.shapes.large.vocabulary import SPLITS as LARGE_SPLITS
from motet.shapes.options import WorldOptions, world_options
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
from motet.shapes.questions import KINDS, Question, caption_question, describe, sample_question
from motet.shapes.render import VOCABULARIES
from motet.shapes.rows import make_row
from motet.shapes.scene import COLOURS, HELD_OUT_COUNTS, HELD_OUT_PAIRS, SHAPES, Scene, ShapeInstance
from motet.shapes.split import in_test_split

__all__ = ["COLUMNS", "ROWS", "SPLITS", "ShapesRows", "evaluation_splits", "open_world"]

SPLITS = ("train", "test", "held_out")
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


class ShapesRows(World[WorldOptions]):
    """Rows of the small shapes world; endless when `size` is None. Row i depends on (seed, split, i) alone."""

    title = "the shapes world"
    vocabulary = VOCABULARIES["small"]
    splits, kinds, hard_kinds = SPLITS, KINDS, HARD_KINDS
    categories, hard_categories = CATEGORIES, HARD_CATEGORIES

    def __init__(self, split: str, seed: int, options: Mapping[str, Any], size: int | None = None) -> None:
        super().__init__(split, seed, world_options(options), size)
        self._min_objects = self.options.min_objects if split == "train" else 1

    def row(self, index: int) -> dict[str, Any]:
        return make_row(self, index)

    def prompt(self, rng: Rng) -> tuple[str, Spec]:
        while True:
            category = self.category(rng)
            spec = sample_spec(rng, category, self.options.grid, self.options.max_count)
            text = prompt_text(spec, choose(rng, PHRASES))
            if is_held_out(spec) != (self.split == "held_out"):
                continue
            # Categories with many specs are split by spec, those with few (four single shapes) by the prompt's wording.
            key = prompt_text(spec) if category in ("position", "colour attribution") else text
            if self.split == "held_out" or in_test_split(key) == (self.split == "test"):
                return text, spec

    def target(self, rng: Rng, spec: Spec) -> Scene:
        return sample_scene(rng, spec)

    def question(self, rng: Rng) -> tuple[Scene, Question]:
        wants_caption = self.wants_caption(rng)
        while True:
            kind = self.question_kind(rng)
            as_prompts = wants_caption and rng.random() < 0.5
            scene = self._prompted_scene(rng) if as_prompts else self.scene(rng)
            if not self.belongs_to_split(describe(scene)):
                continue
            ask = caption_question(scene) if wants_caption else None
            cite_cells = self.options.cite_cells
            question = ask or sample_question(rng, scene, kind, self.open_ended_fraction, cite_cells=cite_cells)
            if question is not None and question.held_out == (self.split == "held_out"):
                return scene, question

    def text_question(self, rng: Rng) -> tuple[Scene, Question]:
        """Descriptions outside the held-out split contain no held-out pair: unlike an image, the text names it."""
        while True:
            scene = self.scene(rng)
            if not self.belongs_to_split(describe(scene)) or not self.may_list(scene):
                continue
            question = sample_question(rng, scene, self.question_kind(rng), self.open_ended_fraction)
            if question is not None and question.held_out == (self.split == "held_out"):
                return scene, question

    def scene(self, rng: Rng) -> Scene:
        grid, names = self.options.grid, [(c, s) for c in COLOURS for s in SHAPES]
        count = int(rng.integers(self._min_objects, self.options.max_objects + 1))
        cells = rng.choice(grid * grid, count, replace=False)
        return Scene(
            grid, tuple(sorted(ShapeInstance(int(c) // grid, int(c) % grid, *choose(rng, names)) for c in cells))
        )

    def _prompted_scene(self, rng: Rng) -> Scene:
        spec = sample_spec(rng, choose(rng, CATEGORIES), self.options.grid, self.options.max_count)
        return sample_scene(rng, spec)

    def may_list(self, scene: Scene) -> bool:
        return self.split == "held_out" or not _contains_held_out_pair(scene.objects)

    def may_count(self, scene: Scene) -> bool:
        return self.split == "held_out" or not any(
            (len(scene.matching(shape)), shape) in HELD_OUT_COUNTS for shape in SHAPES
        )

    def may_show_edit(self, before: Scene, after: Scene) -> bool:
        """Images of edits may contain held-out pairs that the instruction does not name."""
        return self.belongs_to_split(describe(before), describe(after))

    def may_instruct(self, there: Sequence[ShapeInstance], back: Sequence[ShapeInstance]) -> bool:
        if self.split == "held_out":
            return _contains_held_out_pair(there)
        return not _contains_held_out_pair([*there, *back])


def _contains_held_out_pair(objects: Sequence[ShapeInstance]) -> bool:
    return any((obj.colour, obj.shape) in HELD_OUT_PAIRS for obj in objects)


ROWS: dict[str, type[ShapesRows] | type[LargeRows]] = {"small": ShapesRows, "large": LargeRows}
