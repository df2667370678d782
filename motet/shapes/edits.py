"""Edits: a picture, an instruction that names one change exactly, and the instruction that takes it back.

The grammar. A *thing* is named so that nothing else in the picture answers to the name; a *place* is one cell.

    make THING COLOUR           make the left circle red
    turn THING into a SHAPE     turn the red circle into a square
    remove THING                remove the blue square
    add a COLOUR SHAPE PLACE    add a green cross just below the circle
    move THING PLACE            move the cross to c2
    swap THING and THING        swap the red circle and the cross

    THING   the SHAPE | the COLOUR SHAPE | the left|right|top|bottom [COLOUR] SHAPE, of two | the COLOUR SHAPE at CELL
    PLACE   at CELL (of move: to CELL) | just left of|right of|above|below THING, the neighbouring cell
"""

from __future__ import annotations

from typing import Any

from motet.shapes.prompts import Rng, choose
from motet.shapes.questions import describe
from motet.shapes.render import render
from motet.shapes.scene import COLOURS, HELD_OUT_PAIRS, RELATIONS, SHAPES, Scene, ShapeInstance
from motet.shapes.scene_edits import Pieces, free_cells, placed, replaced

INVERSES = {
    "recolour": "recolour",
    "reshape": "reshape",
    "remove": "add",
    "add": "remove",
    "move": "move",
    "swap": "swap",
}
"""Every kind of edit, and the kind that takes it back."""
_STEPS = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
"""From a thing to the cell that is just so of it."""


def edit_row(world: Pieces, rng: Rng) -> dict[str, Any]:
    """A picture `image`, its `instruction`, the picture `edited`, and the `inverse` instruction, which leads back.

    Kinds are even. Neither instruction of training or test changes or names a held-out pair, though the rest of the
    picture may hold one; the instruction of the held-out split does. Both scenes belong to the split.
    """
    kind = choose(rng, tuple(INVERSES))
    while True:
        before = world.scene(rng)
        after = _changed(rng, kind, before, world.options.max_things)
        if after is None or after == before or not world.keeps(describe(before), describe(after)):
            continue
        instruction, held_out = instruct(rng, kind, before, after)
        inverse, held_out_back = instruct(rng, INVERSES[kind], after, before)
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


def instruct(rng: Rng, kind: str, before: Scene, after: Scene) -> tuple[str, bool]:
    """One of the instructions that lead from a scene to another, and whether it changes or names a held-out pair."""
    gone = [thing for thing in before.things if thing not in after.things]
    new = [thing for thing in after.things if thing not in before.things]
    named = [_name(rng, before, thing) for thing in gone]
    anchor: ShapeInstance | None = None
    if kind == "recolour":
        text = f"make {named[0]} {new[0].colour}"
    elif kind == "reshape":
        text = f"turn {named[0]} into a {new[0].shape}"
    elif kind == "remove":
        text = f"remove {named[0]}"
    elif kind == "swap":
        first, second = rng.permutation(named)
        text = f"swap {first} and {second}"
    else:
        place, anchor = _place(rng, before, new[0], gone, "to" if kind == "move" else "at")
        text = f"move {named[0]} {place}" if kind == "move" else f"add a {new[0].name} {place}"
    spoken = [*gone, *new] if anchor is None else [*gone, *new, anchor]
    return text, any((thing.colour, thing.shape) in HELD_OUT_PAIRS for thing in spoken)


def _changed(rng: Rng, kind: str, scene: Scene, most: int) -> Scene | None:
    """The scene after a random edit of a kind; None where it does not allow one."""
    free, colour, shape = free_cells(scene), choose(rng, list(COLOURS)), choose(rng, SHAPES)
    if kind == "add":
        allowed = free and len(scene.things) < most
        return replaced(scene, None, placed(choose(rng, free), colour, shape)) if allowed else None
    old = choose(rng, scene.things)
    if kind == "remove":
        return replaced(scene, old)
    if kind == "recolour":
        return replaced(scene, old, ShapeInstance(old.row, old.column, colour, old.shape))
    if kind == "reshape":
        return replaced(scene, old, ShapeInstance(old.row, old.column, old.colour, shape))
    if kind == "move":
        return replaced(scene, old, placed(choose(rng, free), old.colour, old.shape)) if free else None
    other = choose(rng, scene.things)
    there = ShapeInstance(old.row, old.column, other.colour, other.shape)
    return replaced(replaced(scene, other, ShapeInstance(other.row, other.column, old.colour, old.shape)), old, there)


def _name(rng: Rng, scene: Scene, thing: ShapeInstance) -> str:
    """One of the names to which this thing alone answers; by its cell only where there is no other."""
    names = []
    for words, others in (
        (thing.shape, scene.matching(thing.shape)),
        (thing.name, scene.matching(thing.shape, thing.colour)),
    ):
        if len(others) == 1:
            names.append(f"the {words}")
        elif len(others) == 2:
            other = next(one for one in others if one != thing)
            if thing.column != other.column:
                names.append(f"the {'left' if thing.column < other.column else 'right'} {words}")
            if thing.row != other.row:
                names.append(f"the {'top' if thing.row < other.row else 'bottom'} {words}")
    return choose(rng, names) if names else f"the {thing.name} at {thing.cell}"


def _place(
    rng: Rng, scene: Scene, new: ShapeInstance, gone: list[ShapeInstance], at: str
) -> tuple[str, ShapeInstance | None]:
    """The cell of a new thing in words, and the neighbour by which it is named, if any. What moves is no neighbour."""
    standing = {(t.row, t.column): t for t in scene.things if t not in gone}
    beside = [
        (relation, standing[cell])
        for relation in RELATIONS
        if (cell := (new.row - _STEPS[relation][0], new.column - _STEPS[relation][1])) in standing
    ]
    if not beside or rng.random() < 0.5:
        return f"{at} {new.cell}", None
    relation, anchor = choose(rng, beside)
    return f"just {relation} {_name(rng, scene, anchor)}", anchor
