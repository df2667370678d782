"""Edits of scenes."""

from __future__ import annotations

from dataclasses import replace

from motet.shapes.prompts import Rng, choose
from motet.shapes.render import Vocabulary
from motet.shapes.scene import Scene, ShapeInstance


def free_cells(scene: Scene) -> list[tuple[int, int]]:
    """(row, column) of the empty cells, row by row."""
    taken = {(obj.row, obj.column) for obj in scene.objects}
    return [(r, c) for r in range(scene.grid) for c in range(scene.grid) if (r, c) not in taken]


def place_object(cell: tuple[int, int], colour: str, shape: str, size: str = "") -> ShapeInstance:
    """An object in a cell (row, column)."""
    return ShapeInstance(cell[0], cell[1], colour, shape, size)


def random_name(rng: Rng, vocabulary: Vocabulary) -> tuple[str, str, str]:
    """Colour, shape and size of a random object; the size is empty where there is one."""
    colour, shape = choose(rng, vocabulary.colours), choose(rng, vocabulary.shapes)
    return colour, shape, choose(rng, vocabulary.sizes) if vocabulary.has_sizes else ""


def swap_objects(scene: Scene, one: ShapeInstance, other: ShapeInstance) -> Scene:
    """The scene with each of two objects in the other's cell."""
    there = replace(one, row=other.row, column=other.column)
    back = replace(other, row=one.row, column=one.column)
    return replace_object(replace_object(scene, other, there), one, back)


def replace_object(scene: Scene, old: ShapeInstance | None, *new: ShapeInstance) -> Scene:
    """The scene without `old` (None: nothing is removed) and with the `new` objects."""
    return Scene(scene.grid, tuple(sorted((*(obj for obj in scene.objects if obj != old), *new))))
