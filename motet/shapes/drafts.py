"""Drafts: an image with one planted mistake, the critique that names it, and the correct image."""

from __future__ import annotations

from typing import Any

from motet.shapes.errors_in_words import describe_mistakes, find_mistakes
from motet.shapes.prompts import Rng, Spec, choose, sample_scene
from motet.shapes.questions import describe
from motet.shapes.render import render
from motet.shapes.scene import COLOURS, HELD_OUT_COUNTS, SHAPES, Scene, ShapeInstance
from motet.shapes.scene_edits import World, contains_held_out_pair, free_cells, place_object, replace_object
from motet.shapes.verifier import ParsedImage

MISTAKES = ("colour", "shape", "count", "position", "missing", "extra")
CORRECT_FRACTION = 0.2
"""Fraction of the drafts without a mistake."""


def draft_row(world: World, rng: Rng) -> dict[str, Any]:
    """A prompt, a `draft`, its `mistake`, the `critique` that states the mistake, and the `target` image.

    The critique has the form of a solution: a chain of thought lists the draft, a direct answer does not. Kinds of
    mistakes are uniform; draft and target differ in the mistake alone. Only the held-out split names held-out
    compositions.
    """
    kind = "none" if rng.random() < CORRECT_FRACTION else choose(rng, MISTAKES)
    while True:
        prompt, spec = world.prompt(rng)
        correct = sample_scene(rng, spec)
        draft = correct if kind == "none" else _corrupt(rng, correct, spec, kind)
        if draft is not None and (world.split == "held_out" or not _mentions_held_out(correct, draft)):
            break
    mistake = describe_mistakes(ParsedImage(draft, ()), spec)
    chain_of_thought = bool(rng.random() < world.options.cot_fraction)
    thought = f"{describe(draft)}, so {mistake}" if chain_of_thought else f"looks like {mistake}"
    return {
        "prompt": prompt,
        "category": spec["category"],
        "spec": spec,
        "draft": render(draft, world.options.canvas),
        "kind": kind,
        "mistake": mistake,
        "critique": f"<think> {thought}</think><answer> {mistake}</answer>",
        "target": render(correct, world.options.canvas),
        "scene": describe(draft),
    }


def _corrupt(rng: Rng, correct: Scene, spec: Spec, kind: str) -> Scene | None:
    """The correct scene with one mistake of this kind; None where it is not possible."""
    draft = _change(rng, correct, spec, kind)
    if draft is None:
        return None
    text = find_mistakes(ParsedImage(draft, ()), spec)
    return draft if len(text) == 1 and _IS_OF_KIND[kind](text[0]) else None


_IS_OF_KIND = {
    "colour": lambda text: any(f" is {colour} instead of" in text for colour in COLOURS),
    "shape": lambda text: " is a " in text and " instead of a " in text,
    "count": lambda text: " instead of " in text and " is " not in text,
    "position": lambda text: " is not " in text,
    "missing": lambda text: text.endswith(" is missing"),
    "extra": lambda text: text.endswith(" is extra"),
}
"""Whether the description of the one mistake found is of the kind that was planted."""


def _change(rng: Rng, correct: Scene, spec: Spec, kind: str) -> Scene | None:
    old, free = choose(rng, correct.objects), free_cells(correct)
    colour, shape = choose(rng, list(COLOURS)), choose(rng, SHAPES)
    if kind == "colour":
        return replace_object(correct, old, ShapeInstance(old.row, old.column, colour, old.shape))
    if kind == "shape":
        return replace_object(correct, old, ShapeInstance(old.row, old.column, old.colour, shape))
    if kind == "missing" or (kind == "count" and rng.random() < 0.5):
        return replace_object(correct, old)
    if kind == "position":
        return _misplace(rng, correct) if spec["relation"] is not None else None
    if not free:
        return None
    name = (old.colour, old.shape) if kind == "count" else (colour, shape)
    return replace_object(correct, None, place_object(choose(rng, free), *name))


def _misplace(rng: Rng, correct: Scene) -> Scene:
    """One of two objects moved, or both swapped."""
    first, second = correct.objects
    if rng.random() < 0.5:
        there = ShapeInstance(first.row, first.column, second.colour, second.shape)
        return replace_object(
            replace_object(correct, second, ShapeInstance(second.row, second.column, first.colour, first.shape)),
            first,
            there,
        )
    old = choose(rng, correct.objects)
    return replace_object(correct, old, place_object(choose(rng, free_cells(correct)), old.colour, old.shape))


def _mentions_held_out(correct: Scene, draft: Scene) -> bool:
    """Whether a list of either scene, or a wrong count in the draft, names a composition that training never names."""
    if contains_held_out_pair(correct) or contains_held_out_pair(draft):
        return True
    return correct != draft and any((len(draft.matching(shape)), shape) in HELD_OUT_COUNTS for shape in SHAPES)
