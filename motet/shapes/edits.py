"""Edits: an image, an instruction that names one change exactly, and the inverse instruction.

The grammar. The name of an OBJECT is unambiguous in its image; a PLACE is one cell.

    make OBJECT COLOUR          make the left circle red
    make OBJECT SIZE            make the red star large         (where there are sizes)
    turn OBJECT into a SHAPE    turn the red circle into a square
    remove OBJECT               remove the blue square
    add a COLOUR SHAPE PLACE    add a green cross just below the circle
    move OBJECT PLACE           move the cross to c2
    swap OBJECT and OBJECT      swap the red circle and the cross

    OBJECT  the SHAPE | the COLOUR SHAPE | the left|right|top|bottom [COLOUR] SHAPE, of two | the COLOUR SHAPE at CELL;
            where there are sizes, SIZE may stand before COLOUR and SHAPE, and does when added or named by the cell
    PLACE   at CELL (of move: to CELL) | just left of|right of|above|below OBJECT, the neighbouring cell
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from motet.shapes.base import World
from motet.shapes.prompts import Rng, choose, without_number
from motet.shapes.questions import describe
from motet.shapes.render import render
from motet.shapes.scene import RELATIONS, Scene, ShapeInstance
from motet.shapes.scene_edits import free_cells, place_object, random_name, replace_object, swap_objects

INVERSES = {
    "recolour": "recolour",
    "reshape": "reshape",
    "remove": "add",
    "add": "remove",
    "move": "move",
    "swap": "swap",
    "resize": "resize",
}
"""Every kind of edit, and the kind of its inverse. Only objects with a size are resized."""
_STEPS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
"""Row and column offset from an object to its neighbouring cell in each direction."""


def edit_row(world: World[Any], rng: Rng) -> dict[str, Any]:
    """An image `image`, its `instruction`, the image `edited`, and the `inverse` instruction.

    Kinds are uniform. Neither instruction of training or test changes or names a composition that training does not
    have; the instruction of a split of such compositions does. Both scenes belong to the split.
    """
    kind = choose(rng, tuple(k for k in INVERSES if k != "resize" or world.vocabulary.has_sizes))
    while True:
        before = world.scene(rng)
        after = _random_edit(rng, kind, before, world)
        if after is None or after == before or not world.may_show_edit(before, after):
            continue
        instruction, changed = write_instruction(rng, kind, before, after)
        inverse, changed_back = write_instruction(rng, INVERSES[kind], after, before)
        if world.may_instruct(changed, changed_back):
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


def write_instruction(rng: Rng, kind: str, before: Scene, after: Scene) -> tuple[str, list[ShapeInstance]]:
    """A random instruction that leads from one scene to the other, and the objects that it changes or names."""
    removed = [obj for obj in before.objects if obj not in after.objects]
    added = [obj for obj in after.objects if obj not in before.objects]
    named = [_unique_name(rng, before, obj) for obj in removed]
    anchor: ShapeInstance | None = None
    if kind == "recolour":
        text = f"make {named[0]} {added[0].colour}"
    elif kind == "resize":
        text = f"make {named[0]} {added[0].size}"
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
    return text, [*removed, *added] if anchor is None else [*removed, *added, anchor]


def _random_edit(rng: Rng, kind: str, scene: Scene, world: World[Any]) -> Scene | None:
    """The scene after a random edit of this kind; None where the scene does not allow one."""
    free, (colour, shape, size) = free_cells(scene), random_name(rng, world.vocabulary)
    if kind == "add":
        allowed = free and len(scene.objects) < world.options.max_objects
        return replace_object(scene, None, place_object(choose(rng, free), colour, shape, size)) if allowed else None
    old = choose(rng, scene.objects)
    if kind == "remove":
        return replace_object(scene, old)
    if kind == "recolour":
        return replace_object(scene, old, replace(old, colour=colour))
    if kind == "reshape":
        return replace_object(scene, old, replace(old, shape=shape))
    if kind == "resize":
        return replace_object(scene, old, replace(old, size=size))
    if kind == "move":
        moved = place_object(choose(rng, free), old.colour, old.shape, old.size) if free else None
        return replace_object(scene, old, moved) if moved is not None else None
    return swap_objects(scene, old, choose(rng, scene.objects))


def _unique_name(rng: Rng, scene: Scene, obj: ShapeInstance) -> str:
    """A random unambiguous name of an object; by its cell only where there is no other."""
    names = []
    known: list[dict[str, Any]] = [{"shape": obj.shape}, {"shape": obj.shape, "colour": obj.colour}]
    if obj.size:
        known += [{**own, "size": obj.size} for own in known]
    for own in known:
        name, others = without_number(1, **{"colour": None, **own}), scene.matching(**own)
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
