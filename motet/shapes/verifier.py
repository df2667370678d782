"""Picture -> scene -> verdict: an exact and strict reader of decoded pixels.

Every cell of the grid is compared with every legal cell (bare paper, or one colour of one shape). It is read only if it
is close to one of them everywhere: as a whole and in each small block. A pale, blended, half-drawn or misplaced shape,
a stray mark, an off-palette colour is *unreadable*, and a picture with an unreadable cell is never correct: a lenient
reader is hacked within minutes of reinforcement learning.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from motet.shapes.render import templates
from motet.shapes.scene import Scene, ShapeInstance, related

CELL_TOLERANCE = 16.0
"""Largest root-mean-square difference of a whole cell from its template, in 0..255."""
BLOCK_TOLERANCE = 40.0
"""Largest root-mean-square difference of any block (a quarter of the cell's side) from the template."""
_BLOCKS = 4


@dataclass(frozen=True)
class ParsedImage:
    """A picture read back: its things, and the cells (row, column) that show nothing legal."""

    scene: Scene
    unreadable: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Verdict:
    """Whether a picture shows exactly what was asked (1/0), a partial score in [0, 1], and why not."""

    correct: bool
    partial: float
    reason: str


def read_scene(image: Image.Image, grid: int) -> ParsedImage:
    """Read a picture of any size that is a multiple of `grid`; other sizes read as wholly unreadable."""
    return read_scenes([image], grid)[0]


def read_scenes(images: Sequence[Image.Image], grid: int) -> list[ParsedImage]:
    """`read_scene` of many pictures."""
    everywhere = tuple((r, c) for r in range(grid) for c in range(grid))
    readings = []
    for image in images:
        side = image.width
        if image.height != side or side % grid or side // grid < 6:
            readings.append(ParsedImage(Scene(grid, ()), everywhere))
        else:
            readings.append(_read(np.asarray(image.convert("RGB"), np.float32), grid))
    return readings


def _read(pixels: NDArray[np.float32], grid: int) -> ParsedImage:
    size = pixels.shape[0] // grid
    names, legal = templates(size)
    cells = pixels.reshape(grid, size, grid, size, 3).swapaxes(1, 2).reshape(grid * grid, size, size, 3)
    # Squared distance of every cell to every template, by expanding (a - b)^2.
    flat, flat_legal = cells.reshape(len(cells), -1), legal.reshape(len(legal), -1)
    distance = (flat**2).sum(1)[:, None] - 2 * flat @ flat_legal.T + (flat_legal**2).sum(1)
    best = distance.argmin(axis=1)
    error = ((cells - legal[best]) ** 2).mean(axis=-1)  # [cells, size, size]
    whole = np.sqrt(error.mean(axis=(1, 2)))
    edges = np.linspace(0, size, _BLOCKS + 1).round().astype(int)[:-1]
    blocks = np.add.reduceat(np.add.reduceat(error, edges, axis=1), edges, axis=2)
    extent = np.array([*edges[1:], size], np.float32) - edges.astype(np.float32)
    worst = np.sqrt((blocks / (extent[:, None] * extent[None, :])).max(axis=(1, 2)))
    readable = (whole <= CELL_TOLERANCE) & (worst <= BLOCK_TOLERANCE)
    things, unreadable = [], []
    for index, template in enumerate(best):
        row, column = divmod(index, grid)
        name = names[template]
        if not readable[index]:
            unreadable.append((row, column))
        elif name is not None:
            things.append(ShapeInstance(row, column, *name))
    return ParsedImage(Scene(grid, tuple(things)), tuple(unreadable))


def check_drawing(image: Image.Image, spec: Mapping[str, Any]) -> Verdict:
    """Whether the picture shows what `spec` asks for (see `motet.shapes.prompts`), and nothing else."""
    return judge(read_scene(image, int(spec["grid"])), spec)


def judge(reading: ParsedImage, spec: Mapping[str, Any]) -> Verdict:
    """The verdict on a picture already read.

    Partial score: asked things that are there, over the larger of things asked and marks found (unreadable cells are
    marks); halved when the relation asked for does not hold.
    """
    scene = reading.scene
    found = [scene.matching(group["shape"], group["colour"]) for group in spec["groups"]]
    wanted = [int(group["count"]) for group in spec["groups"]]
    marks = len(scene.things) + len(reading.unreadable)
    matched = sum(min(len(things), count) for things, count in zip(found, wanted, strict=True))
    partial = matched / max(sum(wanted), marks, 1)
    relation = spec.get("relation")
    holds = True
    if relation is not None:
        holds = len(found[0]) == len(found[1]) == 1 and related(found[0][0], relation, found[1][0])
        partial *= 1.0 if holds else 0.5
    if reading.unreadable:
        return Verdict(False, partial, f"{len(reading.unreadable)} cells show nothing legal")
    for things, group in zip(found, spec["groups"], strict=True):
        if len(things) != group["count"]:
            name = " ".join(w for w in (group["colour"], group["shape"] or "thing") if w)
            return Verdict(False, partial, f"{len(things)} instead of {group['count']} of: {name}")
    if marks != sum(wanted):
        return Verdict(False, partial, f"{marks} things instead of {sum(wanted)}")
    if not holds:
        return Verdict(False, partial, f"not {relation}")
    return Verdict(True, 1.0, "")


def layout_free_spec(scene: Scene) -> dict[str, Any]:
    """What `judge` is to ask for so that a picture shows what this scene holds, wherever it stands."""
    groups = Counter((thing.colour, thing.shape) for thing in scene.things).items()
    return {"groups": [{"count": count, "colour": colour, "shape": shape} for (colour, shape), count in groups]}


def compare(reading: ParsedImage, wanted: Scene) -> Verdict:
    """The verdict on a picture that is to show exactly this scene; the partial score is the share of right cells.

    An empty cell that stays empty is right too: a picture that changes nothing has a high share where little is asked.
    """
    there, asked = ({(t.row, t.column): t for t in scene.things} for scene in (reading.scene, wanted))
    every = [(row, column) for row in range(wanted.grid) for column in range(wanted.grid)]
    wrong = [cell for cell in every if cell in reading.unreadable or there.get(cell) != asked.get(cell)]
    reason = f"{len(wanted.things)} things asked for, {len(wrong)} of {len(every)} cells wrong" if wrong else ""
    return Verdict(not wrong, 1 - len(wrong) / len(every), reason)
