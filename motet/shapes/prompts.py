"""Prompts of the shapes world: GenEval's six categories (Ghosh et al. 2023, arXiv 2310.11513) over coloured shapes.

A prompt comes with a *spec*, the JSON-serialisable description that the verifier checks images against:
`{"category", "grid", "groups": [{"count", "shape", "colour"}, ...], "relation": None | "left of" | ...}`.
No object belongs to two groups.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from motet.shapes.large.vocabulary import NUMBERS
from motet.shapes.scene import (
    COLOURS,
    HELD_OUT_COUNTS,
    HELD_OUT_PAIRS,
    RELATIONS,
    SHAPES,
    Scene,
    ShapeInstance,
    related,
)

CATEGORIES = ("single", "two objects", "counting", "colours", "position", "colour attribution")
PHRASES = ("", "draw ", "paint ", "show ", "a picture of ", "an image of ", "a drawing of ", "please draw ")

Spec = dict[str, Any]
Rng = np.random.Generator


def choose(rng: Rng, options: Any) -> Any:
    """One of `options`, uniformly."""
    return options[int(rng.integers(len(options)))]


def plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def _group(count: int, shape: str, colour: str | None) -> dict[str, Any]:
    return {"count": count, "shape": shape, "colour": colour}


def phrase(count: int, shape: str | None, colour: str | None, size: str | None = None) -> str:
    """A group as text: `a small red circle`, `two circles`; without a shape `an orange thing`."""
    name = without_number(count, shape, colour, size)
    if count == 1:
        return f"an {name}" if name.startswith("orange") else f"a {name}"
    return f"{NUMBERS[count]} {name}"


def without_number(count: int, shape: str | None, colour: str | None, size: str | None = None) -> str:
    """The same without a number or an article: `small red circle`, `circles`."""
    name = shape or "thing"
    return " ".join(word for word in (size, colour, name if count == 1 else plural(name)) if word)


def sample_spec(rng: Rng, category: str, grid: int, max_count: int = 5) -> Spec:
    """A random spec of a category, of any composition."""
    colours = list(COLOURS)
    relation = None
    if category == "single":
        groups = [_group(1, choose(rng, SHAPES), None)]
    elif category == "colours":
        groups = [_group(1, choose(rng, SHAPES), choose(rng, colours))]
    elif category == "counting":
        colour = choose(rng, colours) if rng.random() < 0.5 else None
        groups = [_group(int(rng.integers(2, max_count + 1)), choose(rng, SHAPES), colour)]
    elif category == "two objects":
        groups = [_group(1, str(shape), None) for shape in rng.permutation(SHAPES)[:2]]
    elif category == "position":
        coloured = rng.random() < 0.5
        groups = [
            _group(1, str(shape), choose(rng, colours) if coloured else None) for shape in rng.permutation(SHAPES)[:2]
        ]
        relation = choose(rng, RELATIONS)
    else:
        pairs = [(colour, shape) for colour in colours for shape in SHAPES]
        first, second = rng.permutation(len(pairs))[:2]
        groups = [_group(1, pairs[i][1], pairs[i][0]) for i in (first, second)]
    return {"category": category, "grid": grid, "groups": groups, "relation": relation}


def prompt_text(spec: Spec, opening: str = "") -> str:
    """The prompt as text: `two red circles`, `a blue square left of a cross`."""
    joiner = f" {spec['relation']} " if spec["relation"] else " and "
    return opening + joiner.join(phrase(**group) for group in spec["groups"])


def is_held_out(spec: Spec) -> bool:
    """Whether the spec names a composition that training never requests."""
    return any(
        (group["colour"], group["shape"]) in HELD_OUT_PAIRS or (group["count"], group["shape"]) in HELD_OUT_COUNTS
        for group in spec["groups"]
    )


def sample_scene(rng: Rng, spec: Spec) -> Scene:
    """A random scene that satisfies the spec.

    A group without a colour is of one colour or mixed; held-out pairs may occur there.
    """
    grid = spec["grid"]
    colours, names = list(COLOURS), []
    for group in spec["groups"]:
        shared = choose(rng, colours) if rng.random() < 0.5 else None
        for _ in range(group["count"]):
            names.append((group["colour"] or shared or choose(rng, colours), group["shape"]))
    while True:
        cells = rng.choice(grid * grid, len(names), replace=False)
        objects = [ShapeInstance(int(c) // grid, int(c) % grid, *name) for c, name in zip(cells, names, strict=True)]
        if spec["relation"] is None or related(objects[0], spec["relation"], objects[1]):
            return Scene(grid, tuple(sorted(objects)))
