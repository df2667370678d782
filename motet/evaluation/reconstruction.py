"""What the image tokenizer makes of the pictures that a run is to draw: it is frozen, so no drawing can be better.

How much it loses is the squared error of the reconstructions over the squared deviation of the pictures from their own
mean colours, summed over a sample: 0 is a perfect picture, 1 no better than one flat colour. Measured on the shipped
shapes tokenizer: its own world 0.002 (46 dB), easy-VQA 0.76 (18 dB), black words on white 1.6 (20 dB), handwritten
digits 1.0 to 4 (9 and 3 dB; a nearest neighbour reads 15 % of those reconstructions, and 99.5 % of the originals).
LlamaGen's tokenizer, which is Janus's, has 20.8 dB on ImageNet at 256 pixels (arXiv 2406.06525, table 1), about 0.15.
Decibels alone would not tell those words from ImageNet.
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

SAMPLE = 16
"""Pictures of each track that are looked at."""
POOR = 0.3
"""Share of the pictures lost above which a run is warned: between 0.15 and 0.76, see above."""
FLAT = (8 / 255) ** 2
"""Least variance that pictures are taken to have, of values in [0, 1]: of flat ones any error would be infinite."""


@dataclass(frozen=True)
class Reconstruction:
    """`pairs`: pictures as the image tokenizer is shown them, and as it makes them. `lost` as above; `psnr` in dB."""

    pairs: list[tuple[Image.Image, Image.Image]]
    lost: float
    psnr: float

    @property
    def poor(self) -> bool:
        """Whether drawing such pictures cannot be learned well."""
        return self.lost > POOR

    @property
    def warning(self) -> str:
        """One line."""
        share = "all" if self.lost >= 1 else f"{self.lost:.0%}"
        return (
            f"Warning: the frozen image tokenizer loses {share} of what the data's pictures show (PSNR {self.psnr:.0f} "
            f"dB, {len(self.pairs)} pictures): drawings of this checkpoint cannot become better than that."
        )


def reconstruct(policy: Policy, images: Sequence[Image.Image]) -> Reconstruction | None:
    """What the policy's image tokenizer makes of pictures; None without pictures, or where there is no tokenizer."""
    if not images or not isinstance(policy, ReconstructingPolicy):
        return None
    pairs = policy.reconstruct(images)
    errors, variances = [], []
    for shown, made in pairs:
        a, b = (np.asarray(image, np.float64) / 255 for image in (shown, made))
        errors.append(float(((a - b) ** 2).mean()))
        variances.append(float(a.var(axis=(0, 1)).mean()))
    lost = float(np.mean(errors)) / max(float(np.mean(variances)), FLAT)
    return Reconstruction(pairs, lost, float(np.mean([min(psnr(*pair), 60.0) for pair in pairs])))


def reconstruct_sample(session: TrainingSetup) -> Reconstruction | None:
    """Of the pictures that a run's acts are to draw, or that come with the rows of a scenario that draws.

    Rows are taken evenly from each track's data, whose cursor does not move.
    """
    return reconstruct(session.policy, [one for track in session.tracks for one in _sample(track)])


def _sample(track: Track) -> list[Image.Image]:
    size = track.cursor.rows.size
    count = SAMPLE if size is None else min(SAMPLE, size)
    places = [n if size is None else n * size // count for n in range(count)]
    if all(kind == "text" for kind in track.scenario.acts.values()):
        return []
    return [one for n in places for one in images_to_generate(track.cursor.rows.task(n), track)][:SAMPLE]


def images_to_generate(task: Task, track: Track) -> Iterator[Image.Image]:
    """What a row demonstrates for drawings; in reinforcement learning the pictures that come with it."""
    if not track.targets:
        yield from task.images
    for act, kind in track.scenario.acts.items():
        shown = task.columns.get(track.targets.get(act, ""))
        if kind != "text" and isinstance(shown, Image.Image):
            yield shown


def reconstruction_grid(found: Reconstruction) -> Image.Image:
    """Originals and reconstructions side by side."""
    images = [image for pair in found.pairs for image in pair]
    captions = [f"{n + 1}: {word}" for n in range(len(found.pairs)) for word in ("original", "reconstruction")]
    title = f"image tokenizer: {found.psnr:.0f} dB, {min(found.lost, 1):.0%} lost"
    return make_image_grid(images, captions, [None] * len(images), title=title)
