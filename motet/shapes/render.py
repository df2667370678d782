"""Scene -> image. Flat, anti-aliased shapes, one per cell, on a warm white background; exact and deterministic."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from motet.core.errors import ConfigError
from motet.shapes import scene as small
from motet.shapes.large.vocabulary import COLOURS, SHAPES, SIZES
from motet.shapes.scene import BACKGROUND, Scene

Pixels = NDArray[Any]
"""Floating-point pixels, 0..255."""

_SUPERSAMPLING = 8

SCALES = {"": 1.0, "large": 1.0, "small": 0.6}
"""Size of an object relative to its cell."""


class Vocabulary(NamedTuple):
    """What the objects of a world may be; every world has those of the `large` one at most."""

    shapes: tuple[str, ...]
    colours: tuple[str, ...]
    sizes: tuple[str, ...]
    """One empty word where there is one size."""

    @property
    def has_sizes(self) -> bool:
        """Whether objects differ in size."""
        return len(self.sizes) > 1


VOCABULARIES = {
    "small": Vocabulary(small.SHAPES, tuple(small.COLOURS), ("",)),
    "large": Vocabulary(SHAPES, tuple(COLOURS), SIZES),
}
"""By the name of the world."""


def _inside(shape: str, x: Pixels, y: Pixels) -> NDArray[np.bool_]:
    """Whether points of the cell, x right and y down in [-1, 1], lie inside the shape."""
    if shape == "circle":
        return x**2 + y**2 <= 0.86**2
    if shape == "square":
        return np.maximum(abs(x), abs(y)) <= 0.87
    if shape == "triangle":
        return (y <= 0.76) & (abs(x) <= 0.56 * (y + 0.86))
    if shape == "cross":
        return (np.minimum(abs(x), abs(y)) <= 0.27) & (np.maximum(abs(x), abs(y)) <= 0.87)
    if shape == "star":
        return _inside_star(x, y + 0.06)
    if shape == "heart":  # the sextic (x^2 + y^2 - 1)^3 = x^2 y^3, upside down as y points down
        x, y = 1.3 * x, -1.3 * y + 0.1
        return (x**2 + y**2 - 1) ** 3 <= x**2 * y**3
    raise ValueError(f"unknown shape {shape!r}")


def _inside_star(x: Pixels, y: Pixels) -> NDArray[np.bool_]:
    """A five-pointed star: at an angle it reaches as far as the edge from the nearest tip to the notch beside it."""
    outer, inner, tenth = 0.98, 0.42, np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + tenth) % (2 * tenth) - tenth)
    notch = np.array([inner * np.cos(tenth), inner * np.sin(tenth)])
    edge = outer * notch[1] / ((outer - notch[0]) * np.sin(angle) + notch[1] * np.cos(angle))
    return np.hypot(x, y) <= edge


@lru_cache(maxsize=64)
def coverage(shape: str, size: int, scale: float = 1.0) -> Pixels:
    """How much of each pixel of a `size` x `size` cell the shape covers, in [0, 1]; `scale` 1 fills the cell."""
    fine = size * _SUPERSAMPLING
    axis = (((np.arange(fine, dtype=np.float32) + 0.5) / fine) * 2 - 1) / scale
    inside = _inside(shape, axis[None, :], axis[:, None])
    return inside.reshape(size, _SUPERSAMPLING, size, _SUPERSAMPLING).mean(axis=(1, 3), dtype=np.float32)


@lru_cache(maxsize=512)
def cell_pixels(shape: str, colour: str, size: int, object_size: str = "") -> Pixels:
    """One cell with its object, `[size, size, 3]` in 0..255."""
    cover = coverage(shape, size, SCALES[object_size])[..., None]
    foreground, background = np.array(COLOURS[colour], np.float32), np.array(BACKGROUND, np.float32)
    return cover * foreground + (1 - cover) * background


@lru_cache(maxsize=16)
def templates(size: int, world: str = "small") -> tuple[tuple[tuple[str, str, str] | None, ...], Pixels]:
    """The K valid cells: their (colour, shape, size) or None for the empty one, their pixels `[K, size, size, 3]`."""
    names: list[tuple[str, str, str] | None] = [None]
    cells = [np.broadcast_to(np.array(BACKGROUND, np.float32), (size, size, 3))]
    shapes, colours, sizes = VOCABULARIES[world]
    for colour, shape, object_size in itertools.product(colours, shapes, sizes):
        names.append((colour, shape, object_size))
        cells.append(cell_pixels(shape, colour, size, object_size))
    return tuple(names), np.stack(cells)


def render(scene: Scene, canvas: int) -> Image.Image:
    """The RGB image of a scene, `canvas` x `canvas` pixels.

    Raises ConfigError unless the canvas gives every cell the same whole number of pixels, at least 6.
    """
    if canvas % scene.grid or canvas // scene.grid < 6:
        raise ConfigError(
            f"data.options: canvas={canvas} does not give {scene.grid} x {scene.grid} cells of 6 or more whole pixels.",
            fix=f"choose a canvas that is a multiple of the grid, {scene.grid * 8} or larger.",
        )
    size = canvas // scene.grid
    pixels = np.empty((canvas, canvas, 3), np.float32)
    pixels[:] = BACKGROUND
    for obj in scene.objects:
        top, left = obj.row * size, obj.column * size
        pixels[top : top + size, left : left + size] = cell_pixels(obj.shape, obj.colour, size, obj.size)
    return Image.fromarray(pixels.round().astype(np.uint8))
