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
"""Floating-point pixels; or boxes `[N, 4]`: left, top, right and bottom, in pixels."""


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
        return FoundShape(None, None, f"the colour {_rgb(middle)} is not one of the eight: {away:.0f} from {colour}")
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


def _span(low: Pixels, high: Pixels, size: int) -> Pixels:
    """How much of each of `size` pixels the intervals `[...]` cover, in [0, 1]: `[..., size]`."""
    edges = np.arange(size, dtype=np.float32)
    return np.clip(np.minimum(edges + 1, high[..., None]) - np.maximum(edges, low[..., None]), 0, 1)


def _rectangle(boxes: Pixels, size: tuple[int, int]) -> Pixels:
    left, top, right, bottom = boxes.T
    return _span(top, bottom, size[0])[:, :, None] * _span(left, right, size[1])[:, None, :]


def _circle(boxes: Pixels, size: tuple[int, int]) -> Pixels:
    left, top, right, bottom = (edge[:, None] for edge in boxes.T)
    y, x = (np.arange(side, dtype=np.float32) + 0.5 for side in size)
    from_middle = np.square(y - (top + bottom) / 2)[:, :, None] + np.square(x - (left + right) / 2)[:, None, :]
    return np.clip((right - left)[:, :, None] / 2 - np.sqrt(from_middle) + 0.5, 0, 1)


def _triangle(boxes: Pixels, size: tuple[int, int]) -> Pixels:
    """Upright: the apex in the middle of the top, the base at the bottom."""
    left, top, right, bottom = (edge[:, None] for edge in boxes.T)
    y = np.arange(size[0], dtype=np.float32) + 0.5
    half = np.clip((y - top) / np.maximum(bottom - top, 1e-3), 0, 1) * (right - left) / 2
    middle = (left + right) / 2
    return _span(middle - half, middle + half, size[1]) * _span(top[:, 0], bottom[:, 0], size[0])[:, :, None]


def _as_square(boxes: Pixels) -> Pixels:
    """The boxes with their height as their width, around the same centre."""
    left, top, right, bottom = boxes.T
    middle, half = (top + bottom) / 2, (right - left) / 2
    return np.stack([left, middle - half, right, middle + half], axis=1)


def _as_equilateral(boxes: Pixels) -> Pixels:
    left, _, right, bottom = boxes.T
    return np.stack([left, bottom - (right - left) * np.float32(0.75**0.5), right, bottom], axis=1)


_Draw = Callable[[Pixels, tuple[int, int]], Pixels]
_Project = Callable[[Pixels], Pixels]
_SHAPES: dict[str, tuple[_Draw, _Project]] = {
    "circle": (_circle, _as_square),
    "rectangle": (_rectangle, lambda boxes: boxes),
    "triangle": (_triangle, _as_equilateral),
}
"""How a shape covers the pixels of boxes `[N, 4]`: `[N, H, W]`; and the nearest boxes that it can have."""
_MOVES = np.array(
    [
        *((sign, 0, sign, 0) for sign in (-1, 1)),
        *((0, sign, 0, sign) for sign in (-1, 1)),
        *(tuple(sign * int(edge == n) for n in range(4)) for edge in range(4) for sign in (-1, 1)),
    ],
    np.float32,
)
"""Moves of a whole box, and of one edge: `[12, 4]`."""


def _fit(cover: Pixels, draw: _Draw, project: _Project) -> tuple[float, Pixels]:
    """The least mean squared difference of a cover from that of one shape, by steepest descent over its box."""
    size = (cover.shape[0], cover.shape[1])
    rows, columns = (np.flatnonzero(cover.max(axis=axis) > 0.5) for axis in (1, 0))
    box = project(np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float32))[0]
    best = draw(box[None], size)[0]
    least = float(np.square(cover - best).mean())
    for step in _STEPS:
        while True:
            boxes = project(box + step * _MOVES)
            drawn = draw(boxes, size)
            errors = np.square(cover - drawn).mean(axis=(1, 2))
            n = int(errors.argmin())
            if errors[n] >= least - 1e-9:
                break
            box, best, least = boxes[n], drawn[n], float(errors[n])
    return least, best
