"""A monitor of the images that a run generates: how much those of one prompt differ, their colours and edges."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from PIL import Image

from motet.config.choice import Choice
from motet.core.trajectory import ImageAct
from motet.numerics.image_statistics import (
    colour_distance,
    colour_entropy,
    colour_histogram,
    dominant_colour,
    edge_density,
    pixel_distance,
)
from motet.report.callbacks import Metrics, Probe, RolloutBatch
from motet.report.monitors.base import Bound, Monitor, check_count, option_error

STATISTICS = ("colour_distance", "pixel_distance", "colour_entropy", "dominant_colour", "edge_density")
DEFAULT_BOUNDS = {"colour_distance": {"min_ratio": 0.25}, "pixel_distance": {"min_ratio": 0.25}}
"""A quarter of the differences at the start: less is one image for every noise."""
SIDE = 64
"""Images are reduced to this many pixels per side before they are compared, so that large ones take no longer."""
PROBE_SUITE = "image_statistics"
"""The suite that generates images of fixed prompts."""


def group_statistics(images: Sequence[Image.Image]) -> dict[str, float]:
    """The statistics of the images of one prompt, at least two: means over images, distances over pairs."""
    pixels = torch.stack([_pixels(image, images[0].size) for image in images])
    histogram = colour_histogram(pixels)
    return {
        "colour_distance": colour_distance(histogram),
        "pixel_distance": pixel_distance(pixels),
        "colour_entropy": float(colour_entropy(histogram).mean()),
        "dominant_colour": float(dominant_colour(histogram).mean()),
        "edge_density": float(edge_density(pixels).mean()),
    }


def mean_statistics(groups: Sequence[Sequence[Image.Image]]) -> dict[str, float]:
    """The means of `group_statistics` over groups; groups of one image are left out. Empty without any other."""
    found = [group_statistics(images) for images in groups if len(images) > 1]
    return {name: statistics.fmean(group[name] for group in found) for name in STATISTICS} if found else {}


class ImageDiversity(Monitor):
    """Compares statistics of generated images with `bounds`: {STATISTIC: {min, max, min_ratio, max_ratio}}.

    `colour_distance` and `pixel_distance` are means over pairs of images of one prompt, in [0, 1]: of their colours
    wherever they are, and of their pixels in place; both fall when a policy generates one image for every noise.
    `colour_entropy` (bits), `dominant_colour` (share of the most frequent colour) and `edge_density` are means over
    images: they move when a policy fills images with texture, or leaves them empty. See
    `motet.numerics.image_statistics`.

    The images are those of up to `groups` groups of each step's rollouts; with `prompts`, `n` images of each prompt are
    generated every `every` steps instead, with fixed noise: prompts that leave a choice open, such as the colour, show
    a collapse best.
    """

    name: ClassVar[str] = "image_diversity"

    def __init__(
        self,
        bounds: Any = None,
        prompts: Any = None,
        n: Any = 8,
        every: Any = None,
        groups: Any = 8,
        *,
        action: Any = "warn",
        patience: Any = None,
        baseline: Any = None,
    ) -> None:
        probing = prompts is not None
        patience = patience if patience is not None else 1 if probing else 3
        super().__init__(action, patience, baseline if baseline is not None else 1 if probing else 5)
        bounds = DEFAULT_BOUNDS if bounds is None else bounds
        if not isinstance(bounds, Mapping) or not set(bounds) <= set(STATISTICS):
            raise option_error(self.name, "bounds", bounds, f"a mapping with limits of {', '.join(STATISTICS)}")
        self.bounds = {name: Bound.of(self.name, limits, f"bounds.{name}") for name, limits in bounds.items()}
        check_count(self.name, "groups", groups)
        self.groups = groups
        if probing:
            if not isinstance(prompts, list | tuple) or not prompts or not all(isinstance(p, str) for p in prompts):
                raise option_error(self.name, "prompts", prompts, "a list of prompts")
            check_count(self.name, "n", n - 1 if isinstance(n, int) and not isinstance(n, bool) else n)
            check_count(self.name, "every", every)
            self.probe = Probe(Choice.of(PROBE_SUITE, prompts=list(prompts), n=n), every)
        elif every is not None:
            raise option_error(self.name, "every", every, "left out without prompts: rollouts are checked at each step")

    def on_rollout(self, step: int, batches: Sequence[RolloutBatch]) -> Metrics:
        measured: dict[str, float] = {}
        for batch in batches if self.probe is None else ():
            groups = [_images(batch, place) for place in range(len(batch.groups))]
            found = mean_statistics([images for images in groups if len(images) > 1][: self.groups])
            prefix = f"monitor/images/{batch.track}/" if batch.track else "monitor/images/"
            measured |= {f"{prefix}{name}": value for name, value in found.items()}
        return self._compare(step, measured)

    def on_probe(self, step: int, metrics: Metrics) -> Metrics:
        return self._compare(step, {f"monitor/prompts/{name}": value for name, value in metrics.items()})

    def _compare(self, step: int, measured: Mapping[str, float]) -> Metrics:
        fix = (
            "look at the samples of the last steps; start again from an earlier checkpoint with a larger "
            "algorithm.beta, a smaller learning rate, or a reward that does not prefer this image."
        )
        for metric, value in measured.items():
            bound = self.bounds.get(metric.rpartition("/")[2])
            if bound is not None:
                self.check(step, metric, value, bound, fix)
        return measured


def _images(batch: RolloutBatch, place: int) -> list[Image.Image]:
    """The last image of each valid trajectory of a group."""
    group = batch.groups[place]
    acts = [[act for act in group.trajectories[g].acts if isinstance(act, ImageAct)] for g in group.valid_indices]
    return [own[-1].image for own in acts if own]


def _pixels(image: Image.Image, size: tuple[int, int]) -> torch.Tensor:
    """`[3, H, W]` in [0, 1], of at most `SIDE` pixels per side."""
    image, target = image.convert("RGB"), (min(size[0], SIDE), min(size[1], SIDE))
    if image.size != target:
        image = image.resize(target, Image.Resampling.BOX)
    levels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)
    return levels.permute(2, 0, 1).float() / 255
