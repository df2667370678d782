"""A monitor of the images that training generates anyway: their differences, colours and edges, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from motet.report.callbacks import Metrics, RolloutBatch
from motet.report.monitors.base import Monitor, check_count
from motet.report.monitors.image_groups import group_statistics, last_images, mean_statistics, parse_bounds

DEFAULT_BOUNDS = {"colour_distance": {"min_ratio": 0.25}, "pixel_distance": {"min_ratio": 0.25}}
"""A quarter of the differences at the start: less is one image for every noise."""


class RolloutImages(Monitor):
    """Compares statistics of the rollouts' images with `bounds`: {STATISTIC: {min, max, min_ratio, max_ratio}}.

    The statistics are means over up to `groups` groups of each step, whose prompts are others in every step: they show
    textures, empty images and one image for every prompt. What single prompts lose is shown by `image_diversity`. See
    `motet.numerics.image_statistics`.
    """

    name: ClassVar[str] = "rollout_images"

    def __init__(
        self, bounds: Any = None, groups: Any = 8, *, action: Any = "warn", patience: Any = 3, baseline: Any = 5
    ) -> None:
        super().__init__(action, patience, baseline)
        self.bounds = parse_bounds(self.name, DEFAULT_BOUNDS if bounds is None else bounds)
        check_count(self.name, "groups", groups)
        self.groups = groups

    def on_rollout(self, step: int, batches: Sequence[RolloutBatch]) -> Metrics:
        measured: dict[str, float] = {}
        for batch in batches:
            groups = [images for images in map(last_images, batch.groups) if len(images) > 1][: self.groups]
            prefix = f"monitor/images/{batch.track}/" if batch.track else "monitor/images/"
            means = mean_statistics([group_statistics(images) for images in groups])
            measured |= {f"{prefix}{name}": value for name, value in means.items()}
        fix = (
            "look at the samples of the last steps; start again from an earlier checkpoint with a larger "
            "algorithm.beta, a smaller learning rate, or a reward that does not prefer these images."
        )
        for metric, value in measured.items():
            bound = self.bounds.get(metric.rpartition("/")[2])
            if bound is not None:
                self.check(step, metric, value, bound, fix)
        return measured
