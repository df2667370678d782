"""Scenes of the shapes world: objects on a grid of cells."""

from __future__ import annotations

from dataclasses import dataclass

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (219, 58, 52),
    "yellow": (247, 196, 31),
    "green": (52, 162, 84),
    "blue": (47, 111, 222),
    "purple": (146, 78, 196),
    "black": (45, 48, 56),
}
BACKGROUND = (250, 246, 238)
"""Background of every image, a warm white."""

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")

RELATIONS = ("left of", "right of", "above", "below")

# No training prompt or question names these compositions, though images may contain them: compositional OOD.
HELD_OUT_PAIRS = frozenset({("red", "triangle"), ("blue", "cross"), ("green", "circle"), ("yellow", "square")})
HELD_OUT_COUNTS = frozenset({(2, "cross"), (3, "square"), (4, "triangle"), (5, "circle")})


@dataclass(frozen=True, order=True)
class ShapeInstance:
    """One shape in one cell. Ordered row by row, left to right."""

    row: int
    column: int
    colour: str
    shape: str
    size: str = ""
    """`small` or `large` in the large world; empty where there is one size."""

    @property
    def cell(self) -> str:
        """The cell's name: column letter and row number, `a1` at the top left."""
        return f"{'abcdefghijklmnop'[self.column]}{self.row + 1}"

    @property
    def name(self) -> str:
        return f"{self.size} {self.colour} {self.shape}".lstrip()

    def is_of(self, shape: str | None = None, colour: str | None = None, size: str | None = None) -> bool:
        """Whether it has this shape, colour and size; None matches all."""
        return shape in (None, self.shape) and colour in (None, self.colour) and size in (None, self.size)


@dataclass(frozen=True)
class Scene:
    """Things on a `grid` x `grid` board, in reading order."""

    grid: int
    objects: tuple[ShapeInstance, ...]

    def matching(
        self, shape: str | None = None, colour: str | None = None, size: str | None = None
    ) -> list[ShapeInstance]:
        """The objects of this shape, colour and size; None matches all."""
        return [obj for obj in self.objects if obj.is_of(shape, colour, size)]


def related(first: ShapeInstance, relation: str, second: ShapeInstance) -> bool:
    """Whether `first` is `relation` `second`.

    Left, right: strictly smaller or larger column; above, below: row. The large world has three more: `level with` (the
    same row), `in line with` (the same column), `next to` (cells that share a side).
    """
    down, right = second.row - first.row, second.column - first.column
    return {
        "left of": right > 0,
        "right of": right < 0,
        "above": down > 0,
        "below": down < 0,
        "level with": down == 0,
        "in line with": right == 0,
        "next to": abs(down) + abs(right) == 1,
    }[relation]
