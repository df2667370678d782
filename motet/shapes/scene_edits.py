"""What a task of the shapes world builds its rows from; `motet.shapes.world.ShapesRows` is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from motet.shapes.prompts import Rng, Spec
from motet.shapes.scene import HELD_OUT_PAIRS, Scene, ShapeInstance


@runtime_checkable
class Pieces(Protocol):
    """Prompts, scenes and settings of one split. `options` are `motet.shapes.world.WorldOptions`."""

    split: str
    options: Any

    @property
    def open_ended(self) -> float:
        """Share of open-ended questions."""
        ...

    def prompt(self, rng: Rng) -> tuple[str, Spec]:
        """A prompt that belongs to the split, and its spec."""
        ...

    def scene(self, rng: Rng) -> Scene:
        """A random scene of any content."""
        ...

    def kind(self, rng: Rng) -> str:
        """A kind of question, tilted as the options say."""
        ...

    def keeps(self, *keys: str) -> bool:
        """Whether the split may show what these keys stand for: each key is either trained on or held back."""
        ...


Task = Callable[[Pieces, Rng], dict[str, Any]]
"""Makes one row."""


def holds_held_out_pair(scene: Scene) -> bool:
    """Whether a thing of the scene is a composition that training never names. A list of such a scene would name it."""
    return any((thing.colour, thing.shape) in HELD_OUT_PAIRS for thing in scene.things)


def free_cells(scene: Scene) -> list[tuple[int, int]]:
    """Rows and columns of the empty cells, as one reads."""
    taken = {(thing.row, thing.column) for thing in scene.things}
    return [(r, c) for r in range(scene.grid) for c in range(scene.grid) if (r, c) not in taken]


def placed(cell: tuple[int, int], colour: str, shape: str) -> ShapeInstance:
    """A thing in a cell (row, column)."""
    return ShapeInstance(cell[0], cell[1], colour, shape)


def replaced(scene: Scene, old: ShapeInstance | None, *new: ShapeInstance) -> Scene:
    """The scene without one thing (None: with all of them) and with others."""
    return Scene(scene.grid, tuple(sorted((*(thing for thing in scene.things if thing != old), *new))))
