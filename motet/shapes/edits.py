"""Edits: an image, an instruction that names one change exactly, and the inverse instruction.

The grammar. The name of an OBJECT is unambiguous in its image; a PLACE is one cell.

    make OBJECT COLOUR          make the left circle red
    turn OBJECT into a SHAPE    turn the red circle into a square
    remove OBJECT               remove the blue square
    add a COLOUR SHAPE PLACE    add a green cross just below the circle
    move OBJECT PLACE           move the cross to c2
    swap OBJECT and OBJECT      swap the red circle and the cross

    OBJECT  the SHAPE | the COLOUR SHAPE | the left|right|top|bottom [COLOUR] SHAPE, of two | the COLOUR SHAPE at CELL
    PLACE   at CELL (of move: to CELL) | just left of|right of|above|below OBJECT, the neighbouring cell
"""

from __future__ import annotations

from typing import Any

from motet.shapes.prompts import Rng, choose
from motet.shapes.questions import describe
from motet.shapes.render import render
from motet.shapes.scene import COLOURS, HELD_OUT_PAIRS, RELATIONS, SHAPES, Scene, ShapeInstance
from motet.shapes.scene_edits import World, free_cells, place_object, replace_object

INVERSES = {
    "recolour": "recolour",
    "reshape": "reshape",
    "remove": "add",
    "add": "remove",
    "move": "move",
    "swap": "swap",
}
"""Every kind of edit, and the kind of its inverse."""
_STEPS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
"""Row and column offset from an object to its neighbouring cell in each direction."""


def edit_row(world: World, rng: Rng) -> dict[str, Any]:
    """An image `image`, its `instruction`, the image `edited`, and the `inverse` instruction.

    Kinds are uniform. Neither instruction of training or test changes or names a held-out pair, though the rest of the
    image may contain one; the instruction of the held-out split does. Both scenes belong to the split.
    """
    kind = choose(rng, tuple(INVERSES))
    while True:
        before = world.scene(rng)
        after = _random_edit(rng, kind, before, world.options.max_objects)
        if after is None or after == before or not world.belongs_to_split(describe(before), describe(after)):
            continue
        instruction, held_out = write_instruction(rng, kind, before, after)
        inverse, held_out_back = write_instruction(rng, INVERSES[kind], after, before)
        if held_out if world.split == "held_out" else not (held_out or held_out_back):
            break
    return {
        "image": render(before, world.options.canvas),
        "instruction": instruction,
        "inverse": inverse,
        "edited": render(after, world.options.canvas),
        "kind": kind,
        "scene": describe(before),
        "edited_scene": describe(after),
    }


def write_instruction(rng: Rng, kind: str, before: Scene, after: Scene) -> tuple[str, bool]:
    """A random instruction that leads from one scene to the other, and whether it changes or names a held-out pair."""
    removed = [obj for obj in before.objects if obj not in after.objects]
    added = [obj for obj in after.objects if obj not in before.objects]
    named = [_unique_name(rng, before, obj) for obj in removed]
    anchor: ShapeInstance | None = None
    if kind == "recolour":
        text = f"make {named[0]} {added[0].colour}"
    elif kind == "reshape":
        text = f"turn {named[0]} into a {added[0].shape}"
    elif kind == "remove":
        text = f"remove {named[0]}"
    elif kind == "swap":
        first, second = rng.permutation(named)
        text = f"swap {first} and {second}"
    else:
        place, anchor = _cell_phrase(rng, before, added[0], removed, "to" if kind == "move" else "at")
        text = f"move {named[0]} {place}" if kind == "move" else f"add a {added[0].name} {place}"
    mentioned = [*removed, *added] if anchor is None else [*removed, *added, anchor]
    return text, any((obj.colour, obj.shape) in HELD_OUT_PAIRS for obj in mentioned)


def _random_edit(rng: Rng, kind: str, scene: Scene, max_objects: int) -> Scene | None:
    """The scene after a random edit of this kind; None where the scene does not allow one."""
    free, colour, shape = free_cells(scene), choose(rng, list(COLOURS)), choose(rng, SHAPES)
    if kind == "add":
        allowed = free and len(scene.objects) < max_objects
        return replace_object(scene, None, place_object(choose(rng, free), colour, shape)) if allowed else None
    old = choose(rng, scene.objects)
    if kind == "remove":
        return replace_object(scene, old)
    if kind == "recolour":
        return replace_object(scene, old, ShapeInstance(old.row, old.column, colour, old.shape))
    if kind == "reshape":
        return replace_object(scene, old, ShapeInstance(old.row, old.column, old.colour, shape))
    if kind == "move":
        return replace_object(scene, old, place_object(choose(rng, free), old.colour, old.shape)) if free else None
    other = choose(rng, scene.objects)
    there = ShapeInstance(old.row, old.column, other.colour, other.shape)
    return replace_object(
        replace_object(scene, other, ShapeInstance(other.row, other.column, old.colour, old.shape)), old, there
    )


def _unique_name(rng: Rng, scene: Scene, obj: ShapeInstance) -> str:
    """A random unambiguous name of an object; by its cell only where there is no other."""
    names = []
    for name, others in (
        (obj.shape, scene.matching(obj.shape)),
        (obj.name, scene.matching(obj.shape, obj.colour)),
    ):
        if len(others) == 1:
            names.append(f"the {name}")
        elif len(others) == 2:
            other = next(other for other in others if other != obj)
            if obj.column != other.column:
                names.append(f"the {'left' if obj.column < other.column else 'right'} {name}")
            if obj.row != other.row:
                names.append(f"the {'top' if obj.row < other.row else 'bottom'} {name}")
    return choose(rng, names) if names else f"the {obj.name} at {obj.cell}"


def _cell_phrase(
    rng: Rng, scene: Scene, new: ShapeInstance, removed: list[ShapeInstance], at: str
) -> tuple[str, ShapeInstance | None]:
    """The phrase for the cell of a new object, and the neighbour that it names, if any (never the moved object)."""
    by_cell = {(t.row, t.column): t for t in scene.objects if t not in removed}
    beside = [
        (relation, by_cell[cell])
        for relation in RELATIONS
        if (cell := (new.row - _STEPS[relation][0], new.column - _STEPS[relation][1])) in by_cell
    ]
    if not beside or rng.random() < 0.5:
        return f"{at} {new.cell}", None
    relation, anchor = choose(rng, beside)
    return f"just {relation} {_unique_name(rng, scene, anchor)}", anchor
