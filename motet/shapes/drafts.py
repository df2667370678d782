"""Drafts: a picture with one planted mistake, the critique that names it, and the right picture."""

from __future__ import annotations

from typing import Any

from motet.shapes.errors_in_words import mistakes, mistakes_in_words
from motet.shapes.prompts import Rng, Spec, choose, sample_scene
from motet.shapes.questions import describe
from motet.shapes.render import render
from motet.shapes.scene import COLOURS, HELD_OUT_COUNTS, SHAPES, Scene, ShapeInstance
from motet.shapes.scene_edits import Pieces, free_cells, holds_held_out_pair, placed, replaced
from motet.shapes.verifier import ParsedImage

MISTAKES = ("colour", "shape", "count", "position", "missing", "extra")
RIGHT = 0.2
"""Share of the drafts without a mistake."""


def draft_row(world: Pieces, rng: Rng) -> dict[str, Any]:
    """A prompt, a `draft`, what is wrong with it (`mistake`), a `critique` that says so, and the `target`.

    The critique has the form of a solution: a careful thought lists the draft, a glance does not. Sorts of mistakes are
    even; draft and target differ in the mistake alone. Only the held-out split names held-out compositions.
    """
    kind = "none" if rng.random() < RIGHT else choose(rng, MISTAKES)
    while True:
        prompt, spec = world.prompt(rng)
        right = sample_scene(rng, spec)
        draft = right if kind == "none" else _corrupt(rng, right, spec, kind)
        if draft is not None and (world.split == "held_out" or not _names_held_out(right, draft)):
            break
    mistake = mistakes_in_words(ParsedImage(draft, ()), spec)
    careful = bool(rng.random() < world.options.careful)
    thought = f"{describe(draft)}, so {mistake}" if careful else f"looks like {mistake}"
    return {
        "prompt": prompt,
        "category": spec["category"],
        "spec": spec,
        "draft": render(draft, world.options.canvas),
        "kind": kind,
        "mistake": mistake,
        "critique": f"<think> {thought}</think><answer> {mistake}</answer>",
        "target": render(right, world.options.canvas),
        "scene": describe(draft),
    }


def _corrupt(rng: Rng, right: Scene, spec: Spec, kind: str) -> Scene | None:
    """The right scene with one mistake of this kind; None where prompt or chance do not allow it."""
    draft = _change(rng, right, spec, kind)
    if draft is None:
        return None
    words = mistakes(ParsedImage(draft, ()), spec)
    return draft if len(words) == 1 and _SAYS[kind](words[0]) else None


_SAYS = {
    "colour": lambda words: any(f" is {colour} instead of" in words for colour in COLOURS),
    "shape": lambda words: " is a " in words and " instead of a " in words,
    "count": lambda words: " instead of " in words and " is " not in words,
    "position": lambda words: " is not " in words,
    "missing": lambda words: words.endswith(" is missing"),
    "extra": lambda words: words.endswith(" is extra"),
}
"""Whether the one mistake that is found is of the kind that was to be planted."""


def _change(rng: Rng, right: Scene, spec: Spec, kind: str) -> Scene | None:
    old, free = choose(rng, right.things), free_cells(right)
    colour, shape = choose(rng, list(COLOURS)), choose(rng, SHAPES)
    if kind == "colour":
        return replaced(right, old, ShapeInstance(old.row, old.column, colour, old.shape))
    if kind == "shape":
        return replaced(right, old, ShapeInstance(old.row, old.column, old.colour, shape))
    if kind == "missing" or (kind == "count" and rng.random() < 0.5):
        return replaced(right, old)
    if kind == "position":
        return _misplaced(rng, right) if spec["relation"] is not None else None
    if not free:
        return None
    name = (old.colour, old.shape) if kind == "count" else (colour, shape)
    return replaced(right, None, placed(choose(rng, free), *name))


def _misplaced(rng: Rng, right: Scene) -> Scene:
    """One of two things elsewhere, or both in each other's place."""
    first, second = right.things
    if rng.random() < 0.5:
        there = ShapeInstance(first.row, first.column, second.colour, second.shape)
        return replaced(
            replaced(right, second, ShapeInstance(second.row, second.column, first.colour, first.shape)), first, there
        )
    old = choose(rng, right.things)
    return replaced(right, old, placed(choose(rng, free_cells(right)), old.colour, old.shape))


def _names_held_out(right: Scene, draft: Scene) -> bool:
    """Whether a list of a scene, or a wrong number in the draft, names a composition that training never does."""
    if holds_held_out_pair(right) or holds_held_out_pair(draft):
        return True
    return right != draft and any((len(draft.matching(shape)), shape) in HELD_OUT_COUNTS for shape in SHAPES)
