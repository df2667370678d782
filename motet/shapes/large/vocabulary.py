"""Words of the large world, and the sets of compositions that not every ability is trained on.

`only_drawn` compositions are named by training prompts and never by training questions or their solutions, `only_asked`
ones the other way around, `held_out` ones by neither. Every set has a colour word, pairs of a colour and a shape whose
single words are known, and a relation: what one ability learns about them can reach the other only through what the two
share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from motet.shapes import scene

SHAPES = (*scene.SHAPES, "star", "heart")
COLOURS: dict[str, tuple[int, int, int]] = {
    **scene.COLOURS,
    "orange": (240, 128, 30),
    "pink": (244, 140, 190),
    "brown": (122, 78, 44),
}
SIZES = ("small", "large")
NUMBERS = (*scene.NUMBERS, "seven", "eight")
RELATIONS = (*scene.RELATIONS, "level with", "in line with", "next to")


@dataclass(frozen=True)
class Compositions:
    """A colour, a relation and pairs of colour and shape."""

    colour: str
    relation: str
    pairs: frozenset[tuple[str, str]]


SETS = {
    "only_drawn": Compositions(
        "orange",
        "level with",
        frozenset({("red", "circle"), ("yellow", "square"), ("green", "triangle"), ("blue", "cross")}),
    ),
    "only_asked": Compositions(
        "pink",
        "in line with",
        frozenset({("red", "square"), ("yellow", "triangle"), ("purple", "star"), ("black", "heart")}),
    ),
    "held_out": Compositions(
        "brown",
        "next to",
        frozenset({("green", "star"), ("blue", "heart"), ("purple", "circle"), ("black", "cross")}),
    ),
}
"""By the name of the split that tests them."""

SPLITS = ("train", "test", *SETS)
PROMPT_SETS = {"train": {"only_drawn"}, "test": set(), **{name: {name} for name in SETS}}
"""Sets that prompts of a split may name. Those of the splits in SETS name their own."""
QUESTION_SETS = {**PROMPT_SETS, "train": {"only_asked"}}
"""Sets that questions of a split and their images may name."""


def sets_of(pairs: Iterable[tuple[str | None, str | None]], relations: Iterable[str] = ()) -> set[str]:
    """Names of the sets that these pairs of colour and shape (None: not named) and relations belong to."""
    pairs, relations = list(pairs), list(relations)
    return {
        name
        for name, one in SETS.items()
        if one.relation in relations or any(pair[0] == one.colour or pair in one.pairs for pair in pairs)
    }
