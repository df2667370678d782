"""Prompts of the large world: eight categories over objects with a colour, a shape and a size.

A prompt comes with a *spec* that the verifier checks images against:
`{"category", "world": "large", "grid", "groups": [{"count", "shape", "colour", "size"}, ...],
"relations": [[0, "left of", 1], ...], "total": int | None, "absent": {...} | None, "more": [{...}, {...}] | None}`.
No object belongs to two groups. A group without a shape has a colour. `total` and `absent` belong to the category
`negation`, which leaves open what else is there, `more` to `comparison`: more objects of the first kind than of the
second.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import permutations
from typing import Any

from motet.shapes.large.vocabulary import COLOURS, NUMBERS, RELATIONS, SETS, SHAPES, SIZES, sets_of
from motet.shapes.prompts import Rng, Spec, choose, phrase, without_number
from motet.shapes.scene import Scene, ShapeInstance, related

CATEGORIES = ("single", "counting", "counts", "attribution", "position", "chain", "comparison", "negation")
HARD_CATEGORIES = ("counts", "attribution", "position", "chain")
MAX_OBJECTS = 8
FEW_SPECS = ("single", "counting", "negation")
"""Categories that are split into training and test by the wording of the prompt, not by its spec alone."""


def _group(rng: Rng, count: int, open_shapes: float, coloured: float = 1.0, sized: float = 0.4) -> dict[str, Any]:
    """A random group; `coloured` and `sized` are the probabilities that it names a colour and a size.

    With probability `open_shapes` it names a colour and no shape.
    """
    is_open = open_shapes > 0 and bool(rng.random() < open_shapes)
    return {
        "count": count,
        "shape": None if is_open else choose(rng, SHAPES),
        "colour": choose(rng, list(COLOURS)) if is_open or rng.random() < coloured else None,
        "size": choose(rng, SIZES) if rng.random() < sized else None,
    }


def groups_overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether an object could belong to both groups."""
    return all(one[key] == other[key] or None in (one[key], other[key]) for key in ("shape", "colour", "size"))


def _groups(rng: Rng, counts: list[int], open_shapes: float, **probabilities: float) -> list[dict[str, Any]]:
    """Random groups of which no two overlap."""
    while True:
        groups = [_group(rng, count, open_shapes, **probabilities) for count in counts]
        if not any(groups_overlap(one, other) for i, one in enumerate(groups) for other in groups[:i]):
            return groups


def sample_spec(rng: Rng, category: str, grid: int, max_objects: int = MAX_OBJECTS, open_shapes: float = 0.0) -> Spec:
    """A random spec of a category, of any composition.

    `open_shapes` is the probability that a group names a colour and no shape, such as `two red things`.
    """
    spec: Spec = {"category": category, "world": "large", "grid": grid, "groups": [], "relations": []}
    spec |= {"total": None, "absent": None, "more": None}
    if category == "single":
        spec["groups"] = _groups(rng, [1], open_shapes, coloured=0.8, sized=0.6)
    elif category == "counting":
        spec["groups"] = _groups(rng, [int(rng.integers(2, max_objects + 1))], open_shapes, coloured=0.5, sized=0.3)
    elif category == "counts":
        first = int(rng.integers(1, min(5, max_objects)))
        second = int(rng.integers(max(1, 3 - first), min(5, max_objects - first + 1)))
        spec["groups"] = _groups(rng, [first, second], open_shapes, coloured=0.5, sized=0.2)
    elif category == "attribution":
        spec["groups"] = _groups(rng, [1] * int(rng.integers(2, 4)), open_shapes, sized=0.5)
    elif category == "position":
        spec["groups"] = _groups(rng, [1, 1], open_shapes, coloured=0.7, sized=0.3)
        spec["relations"] = [[0, choose(rng, RELATIONS), 1]]
    elif category == "chain":
        spec["groups"] = _groups(rng, [1, 1, 1], open_shapes, coloured=0.8, sized=0.2)
        spec["relations"] = [[0, choose(rng, RELATIONS), 1], [1, choose(rng, RELATIONS), 2]]
    elif category == "comparison":
        shapes = [str(shape) for shape in rng.permutation(SHAPES)[:2]]
        spec["more"] = [
            {"shape": shape, "colour": choose(rng, list(COLOURS)) if rng.random() < 0.3 else None} for shape in shapes
        ]
    else:
        by_shape = rng.random() < 0.5
        spec["total"] = int(rng.integers(2, max_objects + 1))
        spec["absent"] = {
            "shape": choose(rng, SHAPES) if by_shape else None,
            "colour": None if by_shape else choose(rng, list(COLOURS)),
        }
    return spec


def prompt_text(spec: Spec, opening: str = "") -> str:
    """The prompt as text, such as `a red circle left of a blue square that is above a small star`."""
    if spec["more"]:
        first, second = (without_number(0, **group) for group in spec["more"])
        return f"{opening}more {first} than {second}"
    if spec["total"]:
        return f"{opening}{NUMBERS[spec['total']]} things and no {without_number(1, **spec['absent'])}"
    names = [phrase(**group) for group in spec["groups"]]
    if not spec["relations"]:
        return opening + " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    text = names[0]
    for number, (_, relation, second) in enumerate(spec["relations"]):
        text += f"{' that is' if number else ''} {relation} {names[second]}"
    return opening + text


def sets_named(spec: Spec) -> set[str]:
    """Names of the sets in `motet.shapes.large.vocabulary.SETS` whose compositions the prompt names."""
    return sets_of(
        ((group["colour"], group["shape"]) for group in _named_groups(spec)),
        (relation for _, relation, _ in spec["relations"]),
    )


def part_of_set(spec: Spec, split: str) -> str:
    """What of the split's set a prompt of the split names: `colour`, `relation`, or only a `pair` of other words.

    The colour counts first, then the relation: a policy that does not know such a word cannot follow the prompt.
    """
    one = SETS[split]
    if any(group["colour"] == one.colour for group in _named_groups(spec)):
        return "colour"
    return "relation" if any(name == one.relation for _, name, _ in spec["relations"]) else "pair"


def _named_groups(spec: Spec) -> list[dict[str, Any]]:
    """All groups that the prompt names, those of comparisons and negations too."""
    return [*spec["groups"], *(spec["more"] or ()), *filter(None, [spec["absent"]])]


def sample_scene(rng: Rng, spec: Spec, allowed: Collection[str] = tuple(SETS), *, ordered: bool = False) -> Scene:
    """A random scene that satisfies the spec; what the spec leaves open is of the `allowed` sets, or of none.

    The spec itself may name no other sets. The objects are in random cells; or, if `ordered`, in the order of the
    prompt in the first cells, in reading order, that satisfy the relations.
    """
    wanted = _objects_wanted(rng, spec, set(allowed))
    grid = spec["grid"]
    for cells in _first_cells(grid, len(wanted)) if ordered else _random_cells(rng, grid, len(wanted)):
        objects = [ShapeInstance(c // grid, c % grid, *name) for c, name in zip(cells, wanted, strict=True)]
        if all(related(objects[first], relation, objects[second]) for first, relation, second in spec["relations"]):
            return Scene(grid, tuple(sorted(objects)))
    raise ValueError(f"no scene satisfies {spec}")


def _first_cells(grid: int, count: int) -> Iterator[tuple[int, ...]]:
    """All choices of cells, the first ones in reading order first."""
    return permutations(range(grid * grid), count)


def _random_cells(rng: Rng, grid: int, count: int) -> Iterator[tuple[int, ...]]:
    """Random choices of cells without end."""
    while True:
        yield tuple(rng.choice(grid * grid, count, replace=False).tolist())


def _objects_wanted(rng: Rng, spec: Spec, allowed: set[str]) -> list[tuple[str, str, str]]:
    """(colour, shape, size) of every object, group by group."""
    groups = list(spec["groups"])
    if spec["more"]:
        total = int(rng.integers(3, min(MAX_OBJECTS, spec["grid"] ** 2) + 1))
        fewer = int(rng.integers(1, (total - 1) // 2 + 1))
        counts = (total - fewer, fewer)
        groups = [{**group, "count": count, "size": None} for group, count in zip(spec["more"], counts, strict=True)]
    if spec["total"]:
        absent = spec["absent"]
        groups = [{"count": 1, "shape": None, "colour": None, "size": None}] * spec["total"]
        shapes = [shape for shape in SHAPES if shape != absent["shape"]]
        colours = [colour for colour in COLOURS if colour != absent["colour"]]
    else:
        shapes, colours = list(SHAPES), list(COLOURS)
    return [name for group in groups for name in _objects_of(rng, group, colours, shapes, allowed)]


def _objects_of(
    rng: Rng, group: dict[str, Any], colours: Sequence[str], shapes: Sequence[str], allowed: set[str]
) -> list[tuple[str, str, str]]:
    """(colour, shape, size) of the objects of a group; what it leaves open is shared by all in half of the cases."""
    while True:
        colour = choose(rng, colours) if rng.random() < 0.5 else None
        size = choose(rng, SIZES) if rng.random() < 0.5 else None
        objects = [
            (
                group["colour"] or colour or choose(rng, colours),
                group["shape"] or choose(rng, shapes),
                group["size"] or size or choose(rng, SIZES),
            )
            for _ in range(group["count"])
        ]
        if sets_of((colour, shape) for colour, shape, _ in objects) <= allowed:
            return objects
