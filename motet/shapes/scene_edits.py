"""The world that a task of the shapes world samples its rows from, and edits of scenes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from motet.shapes.prompts import Rng, Spec
from motet.shapes.scene import HELD_OUT_PAIRS, Scene, ShapeInstance


@runtime_checkable
class World(Protocol):
    """Prompts, scenes and options of one split, as `motet.shapes.world.ShapesRows` provides them.

    `options` are `motet.shapes.options.WorldOptions`.
    """

    split: str
    options: Any

    @property
    def open_ended_fraction(self) -> float:
        """Fraction of open-ended questions."""
        ...

    def prompt(self, rng: Rng) -> tuple[str, Spec]:
        """A prompt that belongs to the split, and its spec."""
        ...

    def scene(self, rng: Rng) -> Scene:
        """A random scene of any content."""
        ...

    def question_kind(self, rng: Rng) -> str:
        """A random kind of question, with the weights of the options."""
        ...

    def belongs_to_split(self, *keys: str) -> bool:
        """Whether all items with these keys belong to the split: an item is either for training or for validation."""
        ...


Task = Callable[[World, Rng], dict[str, Any]]
"""Makes one row."""


def contains_held_out_pair(scene: Scene) -> bool:
    """Whether the scene contains a pair that training never names: a list of its objects would name it."""
    return any((obj.colour, obj.shape) in HELD_OUT_PAIRS for obj in scene.objects)


def free_cells(scene: Scene) -> list[tuple[int, int]]:
    """(row, column) of the empty cells, row by row."""
    taken = {(obj.row, obj.column) for obj in scene.objects}
    return [(r, c) for r in range(scene.grid) for c in range(scene.grid) if (r, c) not in taken]


def place_object(cell: tuple[int, int], colour: str, shape: str) -> ShapeInstance:
    """An object in a cell (row, column)."""
    return ShapeInstance(cell[0], cell[1], colour, shape)


def replace_object(scene: Scene, old: ShapeInstance | None, *new: ShapeInstance) -> Scene:
    """The scene without `old` (None: nothing is removed) and with the `new` objects."""
    return Scene(scene.grid, tuple(sorted((*(obj for obj in scene.objects if obj != old), *new))))
