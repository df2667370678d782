"""Image -> parsed scene -> result: an exact and strict verifier of decoded pixels.

Every cell of the grid is compared with every valid cell (empty, or one colour of one shape). It is parsed only if it is
close to one of them everywhere: as a whole and in each small block. A cell with a pale, blended, incomplete or
misplaced shape, a stray mark or an off-palette colour is *unreadable*, and an image with an unreadable cell is never
correct: a lenient verifier is hacked within minutes of reinforcement learning.
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
_VALUES_AT_ONCE = 2**22
"""Of pixels that are compared in one matrix product: 16 MiB."""


@dataclass(frozen=True)
class ParsedImage:
    """The objects of an image, and the cells (row, column) that match no known cell template."""

    scene: Scene
    unreadable: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class VerifierResult:
    """Whether an image shows exactly what was requested, a partial score in [0, 1], and the reason if not."""

    correct: bool
    partial: float
    reason: str


def parse_scene(image: Image.Image, grid: int, world: str = "small") -> ParsedImage:
    """Parse a square image whose side is a multiple of `grid`; every cell of any other is unreadable."""
    return parse_scenes([image], grid, world)[0]


def parse_scenes(images: Sequence[Image.Image], grid: int, world: str = "small") -> list[ParsedImage]:
    """`parse_scene` of many images, faster than one by one."""
    everywhere = tuple((r, c) for r in range(grid) for c in range(grid))
    parsed = [ParsedImage(Scene(grid, ()), everywhere)] * len(images)
    by_side: dict[int, list[int]] = {}
    for index, image in enumerate(images):
        side = image.width
        if image.height == side and side % grid == 0 and side // grid >= 6:
            by_side.setdefault(side, []).append(index)
    for side, indices in by_side.items():
        size = max(1, _VALUES_AT_ONCE // (3 * side * side))
        for start in range(0, len(indices), size):
            some = indices[start : start + size]
            pixels = np.stack([np.asarray(images[index].convert("RGB"), np.float32) for index in some])
            for index, found in zip(some, _parse_cells(pixels, grid, world), strict=True):
                parsed[index] = found
    return parsed


def _parse_cells(pixels: NDArray[np.float32], grid: int, world: str) -> list[ParsedImage]:
    """The scenes of images [images, side, side, 3].

    One matrix product for all of them: BLAS has threads of its own, and where they compete with other processes for the
    cores, each product waits for them (docs/lab_notes.md).
    """
    count, size = len(pixels), pixels.shape[1] // grid
    names, valid = templates(size, world)
    cells = pixels.reshape(count, grid, size, grid, size, 3).swapaxes(2, 3).reshape(count * grid * grid, size, size, 3)
    # Squared distance of every cell to every template, by expanding (a - b)^2.
    flat, flat_valid = cells.reshape(len(cells), -1), valid.reshape(len(valid), -1)
    distance = (flat**2).sum(1)[:, None] - 2 * flat @ flat_valid.T + (flat_valid**2).sum(1)
    best = distance.argmin(axis=1)
    readable = _readable(cells, valid[best])
    return [
        _scene_of([names[n] for n in best[cells_of]], readable[cells_of].tolist(), grid)
        for cells_of in (slice(n * grid * grid, (n + 1) * grid * grid) for n in range(count))
    ]


def _readable(cells: NDArray[np.float32], nearest: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each cell [cells, size, size, 3] is close to its template: as a whole, and in its worst block."""
    size = cells.shape[1]
    error = ((cells - nearest) ** 2).mean(axis=-1)  # [cells, size, size]
    whole = np.sqrt(error.mean(axis=(1, 2)))
    edges = np.linspace(0, size, _BLOCKS + 1).round().astype(int)[:-1]
    blocks = np.add.reduceat(np.add.reduceat(error, edges, axis=1), edges, axis=2)
    extent = np.array([*edges[1:], size], np.float32) - edges.astype(np.float32)
    worst = np.sqrt((blocks / (extent[:, None] * extent[None, :])).max(axis=(1, 2)))
    return (whole <= CELL_TOLERANCE) & (worst <= BLOCK_TOLERANCE)


def _scene_of(names: Sequence[tuple[str, ...] | None], readable: Sequence[bool], grid: int) -> ParsedImage:
    """The scene of one image, given the nearest template of each of its cells (None: empty) and whether it is close."""
    objects, unreadable = [], []
    for index, (name, close) in enumerate(zip(names, readable, strict=True)):
        row, column = divmod(index, grid)
        if not close:
            unreadable.append((row, column))
        elif name is not None:
            objects.append(ShapeInstance(row, column, *name))
    return ParsedImage(Scene(grid, tuple(objects)), tuple(unreadable))


def verify_image(image: Image.Image, spec: Mapping[str, Any]) -> VerifierResult:
    """Whether the image shows what `spec` asks for, and nothing else.

    See `motet.shapes.prompts` and `motet.shapes.large.prompts` for specs.
    """
    return verify_images([image], [spec])[0]


def verify_images(images: Sequence[Image.Image], specs: Sequence[Mapping[str, Any]]) -> list[VerifierResult]:
    """`verify_image` of many images, each with its own spec."""
    return [verify(parsed, spec) for parsed, spec in zip(parse_with_specs(images, specs), specs, strict=True)]


def parse_with_specs(images: Sequence[Image.Image], specs: Sequence[Mapping[str, Any]]) -> list[ParsedImage]:
    """`parse_scenes`, each image by the grid and the world of its own spec."""
    parsed: dict[int, ParsedImage] = {}
    by_kind: dict[tuple[int, str], list[int]] = {}
    for index, spec in enumerate(specs):
        by_kind.setdefault((int(spec["grid"]), spec.get("world", "small")), []).append(index)
    for (grid, world), indices in by_kind.items():
        parsed |= zip(indices, parse_scenes([images[index] for index in indices], grid, world), strict=True)
    return [parsed[index] for index in range(len(images))]


def verify(parsed: ParsedImage, spec: Mapping[str, Any]) -> VerifierResult:
    """The result for a parsed image.

    Partial score: requested objects that exist, over the larger of the number requested and the number of non-empty
    cells (unreadable ones included); halved when a requested relation does not hold.
    """
    if spec.get("total") is not None or spec.get("more") is not None:
        return verify_open(parsed, spec)
    scene = parsed.scene
    found = [scene.matching(group["shape"], group["colour"], group.get("size")) for group in spec["groups"]]
    requested = [int(group["count"]) for group in spec["groups"]]
    num_filled = len(scene.objects) + len(parsed.unreadable)
    matched = sum(min(len(objects), count) for objects, count in zip(found, requested, strict=True))
    partial = matched / max(sum(requested), num_filled, 1)
    missing = [
        relation
        for first, relation, second in relations_of(spec)
        if not len(found[first]) == len(found[second]) == 1 or not related(found[first][0], relation, found[second][0])
    ]
    partial *= 0.5 if missing else 1.0
    if parsed.unreadable:
        return VerifierResult(False, partial, f"{len(parsed.unreadable)} cells match no known cell template")
    for objects, group in zip(found, spec["groups"], strict=True):
        if len(objects) != group["count"]:
            return VerifierResult(False, partial, f"{len(objects)} instead of {group['count']} of: {_name(group)}")
    if num_filled != sum(requested):
        return VerifierResult(False, partial, f"{num_filled} objects instead of {sum(requested)}")
    if missing:
        return VerifierResult(False, partial, f"not {missing[0]}")
    return VerifierResult(True, 1.0, "")


def relations_of(spec: Mapping[str, Any]) -> list[tuple[int, str, int]]:
    """Which group is in which relation to which; a spec of the small world has at most one, of its first group."""
    if spec.get("relation") is not None:
        return [(0, spec["relation"], 1)]
    return [tuple(entry) for entry in spec.get("relations", ())]


def _name(group: Mapping[str, Any]) -> str:
    return " ".join(w for w in (group.get("size"), group["colour"], group["shape"] or "object") if w)


def verify_open(parsed: ParsedImage, spec: Mapping[str, Any]) -> VerifierResult:
    """The result where the spec leaves open what the objects are: `total` objects and nothing `absent`, or `more`.

    Partial score: objects that are allowed, over the larger of the number requested and of non-empty cells; for a
    comparison of numbers that is wrong, half of it.
    """
    scene, bad = parsed.scene, len(parsed.unreadable)
    num_filled = len(scene.objects) + bad
    if spec.get("total") is not None:
        forbidden = len(scene.matching(**spec["absent"]))
        partial = (num_filled - forbidden - bad) / max(num_filled, spec["total"], 1)
        reason = f"{forbidden} of: {_name(spec['absent'])}" if forbidden else ""
        if not reason and num_filled != spec["total"]:
            reason = f"{num_filled} objects instead of {spec['total']}"
    else:
        more, fewer = (len(scene.matching(**group)) for group in spec["more"])
        partial = (more + fewer) / max(num_filled, 1) * (1.0 if more > fewer > 0 else 0.5)
        reason = (
            "" if more > fewer > 0 else f"{more} of: {_name(spec['more'][0])}, {fewer} of: {_name(spec['more'][1])}"
        )
        if not reason and more + fewer < num_filled:
            reason = f"{num_filled - more - fewer} other objects"
    if bad:
        reason = f"{bad} cells match no known cell template"
    return VerifierResult(not reason, partial if reason else 1.0, reason)


def layout_free_spec(scene: Scene) -> dict[str, Any]:
    """The spec of all images with the objects of this scene, in whatever cells."""
    groups = Counter((obj.colour, obj.shape, obj.size) for obj in scene.objects).items()
    return {"groups": [dict(zip(("colour", "shape", "size", "count"), (*name, n), strict=True)) for name, n in groups]}


def compare(parsed: ParsedImage, wanted: Scene) -> VerifierResult:
    """The result for an image that must show exactly this scene; the partial score is the fraction of correct cells.

    Empty cells count too, so that an edit that changes nothing gets a high fraction where few changes are requested.
    """
    there, asked = ({(t.row, t.column): t for t in scene.objects} for scene in (parsed.scene, wanted))
    every = [(row, column) for row in range(wanted.grid) for column in range(wanted.grid)]
    wrong = [cell for cell in every if cell in parsed.unreadable or there.get(cell) != asked.get(cell)]
    reason = f"{len(wanted.objects)} objects requested, {len(wrong)} of {len(every)} cells wrong" if wrong else ""
    return VerifierResult(not wrong, 1 - len(wrong) / len(every), reason)
