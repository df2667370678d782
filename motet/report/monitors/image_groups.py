"""Statistics of groups of images that one prompt led to, and the limits that a recipe sets for them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from motet.core.trajectory import Group, ImageAct
from motet.numerics.image_statistics import (
    colour_distance,
    colour_entropy,
    colour_histogram,
    content_colours,
    dominant_colour,
    edge_density,
    effective_number,
    pixel_distance,
)
from motet.report.monitors.base import Bound, option_error

STATISTICS = (
    "colour_modes",
    "colour_distance",
    "pixel_distance",
    "colour_entropy",
    "dominant_colour",
    "edge_density",
)
SIDE = 64
"""Images are reduced to this many pixels per side before they are compared, so that large ones take no longer."""


def group_statistics(images: Sequence[Image.Image]) -> dict[str, float]:
    """The statistics of the images of one prompt, at least two: of the group, or means over images or pairs."""
    pixels = torch.stack([_pixels(image, images[0].size) for image in images])
    histogram = colour_histogram(pixels)
    return {
        "colour_modes": effective_number(content_colours(pixels)),
        "colour_distance": colour_distance(histogram),
        "pixel_distance": pixel_distance(pixels),
        "colour_entropy": float(colour_entropy(histogram).mean()),
        "dominant_colour": float(dominant_colour(histogram).mean()),
        "edge_density": float(edge_density(pixels).mean()),
    }


def mean_statistics(groups: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The means of `group_statistics` over groups; empty without any."""
    return {name: statistics.fmean(group[name] for group in groups) for name in STATISTICS} if groups else {}


def last_images(group: Group) -> list[Image.Image]:
    """The last image of each valid trajectory of a group."""
    acts = [[act for act in group.trajectories[g].acts if isinstance(act, ImageAct)] for g in group.valid_indices]
    return [own[-1].image for own in acts if own]


def parse_bounds(monitor: str, bounds: Any) -> dict[str, Bound]:
    """The option `bounds`, {STATISTIC: {min, max, min_ratio, max_ratio}}. Raises ConfigError."""
    if not isinstance(bounds, Mapping) or not set(bounds) <= set(STATISTICS):
        raise option_error(monitor, "bounds", bounds, f"a mapping with limits of {', '.join(STATISTICS)}")
    return {name: Bound.of(monitor, limits, f"bounds.{name}") for name, limits in bounds.items()}


def _pixels(image: Image.Image, size: tuple[int, int]) -> torch.Tensor:
    """`[3, H, W]` in [0, 1], of at most `SIDE` pixels per side."""
    image, target = image.convert("RGB"), (min(size[0], SIDE), min(size[1], SIDE))
    if image.size != target:
        image = image.resize(target, Image.Resampling.BOX)
    levels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)
    return levels.permute(2, 0, 1).float() / 255
