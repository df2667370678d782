"""Verify images of one plain shape on a light background, like those of the data set easy-VQA.

easy-VQA (Victor Zhou, MIT, https://github.com/vzhou842/easy-VQA): 64 pixels, one of three shapes, in one of eight
colours, anywhere, on a pale background. The verifier takes the nearest of the colours, fits each shape to the pixels
and accepts the best fit only if that colour is near and the image is close to the fit everywhere, as a whole and in
each block: another colour, and a ragged, blended, second or incomplete shape are invalid.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

COLOURS: dict[str, tuple[int, int, int]] = {
    "black": (0, 0, 0),
    "blue": (0, 0, 255),
    "brown": (165, 42, 42),
    "gray": (128, 128, 128),
    "green": (0, 255, 0),
    "red": (255, 0, 0),
    "teal": (0, 128, 128),
    "yellow": (255, 255, 0),
}
SHAPES = ("circle", "rectangle", "triangle")

PALE = 215.0
"""Least value of each channel of a background, in 0..255; that of easy-VQA's own is 229."""
MIN_AREA = 16.0
"""Fewest pixels of a shape."""
COLOUR_TOLERANCE = 80.0
"""Largest distance of a shape's colour from the nearest of COLOURS, in RGB of 0..255; 7 in easy-VQA's own images, 44 in
those halved to 32 pixels. Orange is at 90 (from yellow), a small shape of which is close to a red or yellow one."""
IMAGE_TOLERANCE = 12.0
"""Largest root-mean-square difference of an image from its best fit, in 0..255."""
BLOCK_TOLERANCE = 48.0
"""Largest root-mean-square difference of any block of 8 x 8 pixels from the best fit."""
_BLOCK = 8
_STEPS = (2.0, 1.0, 0.5, 0.25)

Pixels = NDArray[Any]
"""Floating-point pixels."""
Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""


@dataclass(frozen=True)
class FoundShape:
    """The best fit to an image: a shape in a colour, or None for both where the image matches none (`reason`)."""

    colour: str | None
    shape: str | None
    reason: str = ""


def find_shape(image: Image.Image) -> FoundShape:
    """The one shape that an image shows.

    The image is RGB of any size from 16 pixels; a larger one needs the same proportions, not the same size.
    """
    if min(image.size) < 2 * _BLOCK:
        return FoundShape(None, None, f"{image.width} x {image.height} pixels, fewer than {2 * _BLOCK} a side")
    pixels = np.asarray(image.convert("RGB"), np.float32)
    background = np.median(pixels.reshape(-1, 3), axis=0)
    if background.min() < PALE:
        return FoundShape(None, None, "the background is not pale")
    distance = np.abs(pixels - background).max(axis=2)
    inside = distance > 0.75 * distance.max()
    if distance.max() < 64 or inside.sum() < MIN_AREA:
        return FoundShape(None, None, "there is no shape")
    middle = np.median(pixels[inside], axis=0)
    colour = min(COLOURS, key=lambda name: float(np.square(middle - COLOURS[name]).sum()))
    away = float(np.linalg.norm(middle - COLOURS[colour]))
    if away > COLOUR_TOLERANCE:
        return FoundShape(None, None, f"the colour {_rgb(middle)} is none of the eight: {away:.0f} from {colour}")
    offset = np.array(COLOURS[colour], np.float32) - background
    cover = np.clip((pixels - background) @ offset / (offset @ offset), 0, 1)
    fits = {shape: _fit(cover, draw, project) for shape, (draw, project) in _SHAPES.items()}
    shape = min(fits, key=lambda name: fits[name][0])
    error = np.square(pixels - background - fits[shape][1][..., None] * offset).mean(axis=2)
    whole, worst = float(np.sqrt(error.mean())), float(np.sqrt(_block_means(error).max()))
    if whole > IMAGE_TOLERANCE or worst > BLOCK_TOLERANCE:
        return FoundShape(None, None, f"not a {colour} {shape} everywhere: differs by {whole:.0f}, {worst:.0f}")
    return FoundShape(colour, shape)


def _rgb(colour: Pixels) -> str:
    return f"({', '.join(f'{channel:.0f}' for channel in colour)})"


def _block_means(error: Pixels) -> Pixels:
    rows, columns = (np.arange(0, side - _BLOCK + 1, _BLOCK) for side in error.shape)
    sums = np.add.reduceat(np.add.reduceat(error, rows, axis=0), columns, axis=1)
    heights, widths = np.diff([*rows, error.shape[0]]), np.diff([*columns, error.shape[1]])
    return sums / (heights[:, None] * widths[None, :])


def _span(low: Any, high: Any, size: int) -> Pixels:
    """How much of each of `size` pixels the interval covers, in [0, 1]."""
    edges = np.arange(size, dtype=np.float32)
    return np.clip(np.minimum(edges + 1, high) - np.maximum(edges, low), 0, 1)


def _rectangle(box: Box, shape: tuple[int, int]) -> Pixels:
    left, top, right, bottom = box
    return _span(top, bottom, shape[0])[:, None] * _span(left, right, shape[1])[None, :]


def _circle(box: Box, shape: tuple[int, int]) -> Pixels:
    left, top, right, bottom = box
    y, x = np.arange(shape[0], dtype=np.float32)[:, None] + 0.5, np.arange(shape[1], dtype=np.float32)[None, :] + 0.5
    away = np.sqrt((x - (left + right) / 2) ** 2 + (y - (top + bottom) / 2) ** 2)
    return np.clip((right - left) / 2 - away + 0.5, 0, 1)


def _triangle(box: Box, shape: tuple[int, int]) -> Pixels:
    """Upright: the apex in the middle of the top, the base at the bottom."""
    left, top, right, bottom = box
    y = np.arange(shape[0], dtype=np.float32) + 0.5
    half = np.clip((y - top) / max(bottom - top, 1e-3), 0, 1)[:, None] * (right - left) / 2
    middle = (left + right) / 2
    return _span(top, bottom, shape[0])[:, None] * _span(middle - half, middle + half, shape[1])


def _as_square(box: Box) -> Box:
    """The box with its height as its width, around the same centre."""
    left, top, right, bottom = box
    middle, half = (top + bottom) / 2, (right - left) / 2
    return left, middle - half, right, middle + half


def _as_equilateral(box: Box) -> Box:
    left, _, right, bottom = box
    return left, bottom - (right - left) * 0.75**0.5, right, bottom


_SHAPES: dict[str, tuple[Callable[[Box, tuple[int, int]], Pixels], Callable[[Box], Box]]] = {
    "circle": (_circle, _as_square),
    "rectangle": (_rectangle, lambda box: box),
    "triangle": (_triangle, _as_equilateral),
}
"""How a shape covers the pixels of its box, and the nearest box that it can have."""


def _fit(
    cover: Pixels, draw: Callable[[Box, tuple[int, int]], Pixels], project: Callable[[Box], Box]
) -> tuple[float, Pixels]:
    """The least mean squared difference of a cover from that of one shape, by coordinate descent over its box."""
    size = (cover.shape[0], cover.shape[1])
    rows, columns = (np.flatnonzero(cover.max(axis=axis) > 0.5) for axis in (1, 0))
    box: Box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    box = project(box)
    best = draw(box, size)
    least = float(np.square(cover - best).mean())
    for step in _STEPS:
        improved = True
        while improved:
            improved = False
            for move in _MOVES:
                moved = project(tuple(edge + step * by for edge, by in zip(box, move, strict=True)))  # type: ignore[arg-type]
                drawn = draw(moved, size)
                error = float(np.square(cover - drawn).mean())
                if error < least - 1e-9:
                    box, best, least, improved = moved, drawn, error, True
    return least, best


_MOVES = (
    *((sign, 0, sign, 0) for sign in (-1, 1)),
    *((0, sign, 0, sign) for sign in (-1, 1)),
    *(tuple(sign * float(edge == n) for n in range(4)) for edge in range(4) for sign in (-1, 1)),
)
"""Moves of a whole box, and of one edge."""
