"""Drafts: an image with one planted mistake, the critique that names it, and the correct image."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from typing import Any

from motet.shapes.base import World
from motet.shapes.errors_in_words import describe_mistakes, find_mistakes
from motet.shapes.large.vocabulary import COLOURS, SIZES
from motet.shapes.prompts import Rng, Spec, choose
from motet.shapes.questions import describe
from motet.shapes.render import render
from motet.shapes.scene import Scene
from motet.shapes.scene_edits import free_cells, place_object, random_name, replace_object, swap_objects
from motet.shapes.verifier import ParsedImage, relations_of

MISTAKES = ("colour", "shape", "count", "position", "missing", "extra", "size")
"""Objects of the wrong size are there only where objects have sizes."""
CORRECT_FRACTION = 0.2
"""Fraction of the drafts without a mistake."""
_MAX_ATTEMPTS = 200
"""At a mistake of one kind, before another kind is chosen; 300 rows of the default categories need at most 57."""


def draft_row(world: World[Any], rng: Rng) -> dict[str, Any]:
    """A prompt, a `draft`, its `mistake`, the `critique` that states the mistake, and the `target` image.

    The critique has the form of a solution: a chain of thought lists the draft, a direct answer does not. Kinds of
    mistakes are uniform, of those that the prompts allow: in a comparison an object of a wrong colour is extra. Draft
    and target differ in the mistake alone. Only splits of held-out compositions name them.
    """
    kinds = [kind for kind in MISTAKES if kind != "size" or world.vocabulary.has_sizes]
    kind = "none" if rng.random() < CORRECT_FRACTION else choose(rng, kinds)
    while (made := _draft_of_kind(rng, kind, world)) is None:
        kinds.remove(kind)
        kind = choose(rng, kinds)
    prompt, spec, correct, draft = made
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


def _draft_of_kind(rng: Rng, kind: str, world: World[Any]) -> tuple[str, Spec, Scene, Scene] | None:
    """A prompt, its spec, a correct scene, and one with a mistake of this kind; None if no attempt succeeds.

    `none`, a draft without a mistake, is possible with every prompt.
    """
    for _ in count() if kind == "none" else range(_MAX_ATTEMPTS):
        prompt, spec = world.prompt(rng)
        correct = world.target(rng, spec)
        draft = correct if kind == "none" else _corrupt(rng, correct, spec, kind, world)
        if draft is None or not (world.may_list(correct) and world.may_list(draft)):
            continue
        if draft == correct or world.may_count(draft):
            return prompt, spec, correct, draft
    return None


def _corrupt(rng: Rng, correct: Scene, spec: Spec, kind: str, world: World[Any]) -> Scene | None:
    """The correct scene with one mistake of this kind; None where it is not possible."""
    draft = _change(rng, correct, spec, kind, world)
    if draft is None:
        return None
    text = find_mistakes(ParsedImage(draft, ()), spec)
    return draft if len(text) == 1 and _IS_OF_KIND[kind](text[0]) else None


_IS_OF_KIND = {
    "colour": lambda text: any(f" is {colour} instead of" in text for colour in COLOURS),
    "shape": lambda text: " is a " in text and " instead of a " in text,
    "size": lambda text: any(f" is {size} instead of" in text for size in SIZES),
    "count": lambda text: (" instead of " in text and " is " not in text) or text.startswith("not more "),
    "position": lambda text: " is not " in text,
    "missing": lambda text: text.endswith(" is missing"),
    "extra": lambda text: text.endswith((" is extra", " is wrong")),
}
"""Whether the description of the one mistake found is of the kind that was planted."""


def _change(rng: Rng, correct: Scene, spec: Spec, kind: str, world: World[Any]) -> Scene | None:
    old, free = choose(rng, correct.objects), free_cells(correct)
    colour, shape, size = random_name(rng, world.vocabulary)
    if kind == "colour":
        return replace_object(correct, old, replace(old, colour=colour))
    if kind == "shape":
        return replace_object(correct, old, replace(old, shape=shape))
    if kind == "size":
        return replace_object(correct, old, replace(old, size=size))
    if kind == "missing" or (kind == "count" and rng.random() < 0.5):
        return replace_object(correct, old)
    if kind == "position":
        return _misplace(rng, correct) if relations_of(spec) else None
    if kind == "extra" and spec.get("absent"):
        return replace_object(correct, old, replace(old, **{k: word for k, word in spec["absent"].items() if word}))
    if not free:
        return None
    name = (old.colour, old.shape, old.size) if kind == "count" else (colour, shape, size)
    return replace_object(correct, None, place_object(choose(rng, free), *name))


def _misplace(rng: Rng, correct: Scene) -> Scene:
    """One object moved, or two swapped."""
    pair = correct.objects
    if len(pair) > 2:
        pair = tuple(pair[i] for i in rng.permutation(len(pair))[:2])
    if rng.random() < 0.5:
        return swap_objects(correct, *pair)
    old = choose(rng, pair)
    return replace_object(correct, old, place_object(choose(rng, free_cells(correct)), old.colour, old.shape, old.size))
