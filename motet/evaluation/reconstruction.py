"""Reconstruction of a run's target images by the frozen image tokenizer, which limits the quality of generated images.

The loss is the squared error of the reconstructions divided by the squared deviation of the images from their own mean
colours, over a sample: 0 is perfect, 1 no better than a single colour. Measured for the shipped shapes tokenizer: its
own world 0.002 (46 dB), easy-VQA 0.76 (18 dB), black text on white 1.6 (20 dB), handwritten digits 1.0 to 4 (9 and 3
dB; a nearest-neighbour classifier gets 15 % of those reconstructions right, and 99.5 % of the originals). LlamaGen's
tokenizer, which Janus uses, has 20.8 dB on ImageNet at 256 pixels (arXiv 2406.06525, table 1), about 0.15. Decibels
alone would not distinguish the text images from ImageNet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from motet.core.protocols import Policy, ReconstructingPolicy
from motet.core.task import Task
from motet.report.image_grid import make_image_grid
from motet.rewards.image.psnr import psnr
from motet.training.setup import Track, TrainingSetup

MAX_IMAGES = 16
"""Images of each track that are reconstructed."""
POOR_LOSS = 0.3
"""Loss above which a run warns: between 0.15 and 0.76, see above."""
MIN_VARIANCE = (8 / 255) ** 2
"""Lower bound on the variance of images with values in [0, 1], to avoid division by zero for single-colour images."""


@dataclass(frozen=True)
class Reconstruction:
    """`pairs`: input images of the image tokenizer and their reconstructions. `loss` as above; `psnr` in dB."""

    pairs: list[tuple[Image.Image, Image.Image]]
    loss: float
    psnr: float

    @property
    def is_poor(self) -> bool:
        """Whether such images cannot be generated well."""
        return self.loss > POOR_LOSS

    @property
    def warning(self) -> str:
        """A warning of one line."""
        share = "all" if self.loss >= 1 else f"{self.loss:.0%}"
        return (
            f"Warning: the frozen image tokenizer loses {share} of the content of the data's images (PSNR "
            f"{self.psnr:.0f} dB, {len(self.pairs)} images): generated images of this checkpoint cannot be better."
        )


def reconstruct(policy: Policy, images: Sequence[Image.Image]) -> Reconstruction | None:
    """Reconstruct images with the policy's image tokenizer; None without images or without a tokenizer."""
    if not images or not isinstance(policy, ReconstructingPolicy):
        return None
    pairs = policy.reconstruct(images)
    errors, variances = [], []
    for original, reconstructed in pairs:
        a, b = (np.asarray(image, np.float64) / 255 for image in (original, reconstructed))
        errors.append(float(((a - b) ** 2).mean()))
        variances.append(float(a.var(axis=(0, 1)).mean()))
    loss = float(np.mean(errors)) / max(float(np.mean(variances)), MIN_VARIANCE)
    return Reconstruction(pairs, loss, float(np.mean([min(psnr(*pair), 60.0) for pair in pairs])))


def reconstruct_sample(session: TrainingSetup) -> Reconstruction | None:
    """Reconstruct a sample of the run's target images, or of images in the rows of a scenario that generates images.

    Rows are spread evenly over each track's data; the state of its sampler does not change.
    """
    return reconstruct(session.policy, [image for track in session.tracks for image in _sample(track)])


def _sample(track: Track) -> list[Image.Image]:
    size = track.cursor.rows.size
    count = MAX_IMAGES if size is None else min(MAX_IMAGES, size)
    indices = [n if size is None else n * size // count for n in range(count)]
    if not track.scenario.acts_making("image"):
        return []
    return [image for n in indices for image in images_to_generate(track.cursor.rows.task(n), track)][:MAX_IMAGES]


def images_to_generate(task: Task, track: Track) -> Iterator[Image.Image]:
    """The target images of a row; in RL the images in the row."""
    if not track.targets:
        yield from task.images
    for act in track.scenario.acts_making("image"):
        target = task.columns.get(track.targets.get(act, ""))
        if isinstance(target, Image.Image):
            yield target


def reconstruction_grid(reconstruction: Reconstruction) -> Image.Image:
    """A grid of originals and reconstructions side by side."""
    images = [image for pair in reconstruction.pairs for image in pair]
    labels = ("original", "reconstruction")
    captions = [f"{n + 1}: {label}" for n in range(len(reconstruction.pairs)) for label in labels]
    title = (
        "the data's images and what the frozen image tokenizer makes of them: "
        f"{min(reconstruction.loss, 1):.0%} of their content lost (PSNR {reconstruction.psnr:.0f} dB)"
    )
    return make_image_grid(images, captions, [None] * len(images), title=title)
