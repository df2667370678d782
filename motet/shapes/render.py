"""Scene -> image. Flat, anti-aliased shapes, one per cell, on a warm white background; exact and deterministic."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from motet.core.errors import ConfigError
from motet.shapes.scene import BACKGROUND, COLOURS, SHAPES, Scene

Pixels = NDArray[Any]
"""Floating-point pixels, 0..255."""

_SUPERSAMPLING = 8


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
    raise ValueError(f"unknown shape {shape!r}")


@lru_cache(maxsize=64)
def coverage(shape: str, size: int) -> Pixels:
    """How much of each pixel of a `size` x `size` cell the shape covers, in [0, 1]."""
    fine = size * _SUPERSAMPLING
    axis = ((np.arange(fine, dtype=np.float32) + 0.5) / fine) * 2 - 1
    inside = _inside(shape, axis[None, :], axis[:, None])
    return inside.reshape(size, _SUPERSAMPLING, size, _SUPERSAMPLING).mean(axis=(1, 3), dtype=np.float32)


@lru_cache(maxsize=512)
def cell_pixels(shape: str, colour: str, size: int) -> Pixels:
    """One cell with its object, `[size, size, 3]` in 0..255."""
    cover = coverage(shape, size)[..., None]
    foreground, background = np.array(COLOURS[colour], np.float32), np.array(BACKGROUND, np.float32)
    return cover * foreground + (1 - cover) * background


@lru_cache(maxsize=16)
def templates(size: int) -> tuple[tuple[tuple[str, str] | None, ...], Pixels]:
    """The K valid cells: their (colour, shape), None for the empty cell, and their pixels `[K, size, size, 3]`."""
    names: list[tuple[str, str] | None] = [None]
    cells = [np.broadcast_to(np.array(BACKGROUND, np.float32), (size, size, 3))]
    for colour in COLOURS:
        for shape in SHAPES:
            names.append((colour, shape))
            cells.append(cell_pixels(shape, colour, size))
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
        pixels[top : top + size, left : left + size] = cell_pixels(obj.shape, obj.colour, size)
    return Image.fromarray(pixels.round().astype(np.uint8))
