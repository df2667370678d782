"""GenEval (Ghosh et al. 2023, arXiv 2310.11513): objects, counts, colours and positions by Mask2Former and CLIP.

The scores are those of the reward `gen_eval`; the table is that of the released `summary_scores.py`: the share of
correct images of each task, and the mean over tasks as the overall score.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import PositiveInt

from motet.core.errors import DataError
from motet.core.protocols import Policy
from motet.evaluation.image_benchmarks.base import BenchmarkOptions, ImageBenchmark, ScoreImages, tile
from motet.evaluation.image_benchmarks.prompts import Prompt, read_benchmark, text_of
from motet.evaluation.image_benchmarks.scores import ImageScore
from motet.report.image_grid import save_image
from motet.rewards.image.clip import Clip
from motet.rewards.image.detector import Detector
from motet.rewards.image.gen_eval import GenEvalSpec, Thresholds, clauses, evaluate_images
from motet.rewards.models import device_of


class GenEvalOptions(BenchmarkOptions):
    """Options of the evaluation suite `geneval`."""

    detector: str = "facebook/mask2former-swin-small-coco-instance"
    """Folder or hub id of a Mask2Former over COCO's classes; the default has the original's weights."""
    clip: str = "openai/clip-vit-large-patch14"
    """Folder or hub id of a CLIP model; the default has the original's weights."""
    batch_size: PositiveInt = 8
    """Images that the detector sees at a time."""


class GenEvalSuite(ImageBenchmark):
    """The six tasks of GenEval; `prompts` is its file evaluation_metadata.jsonl."""

    name = "geneval"
    title = "GenEval: share of correct images"
    default_samples = 4
    Settings = GenEvalOptions

    def read(self, options: GenEvalOptions) -> list[Prompt]:
        """Rows of {tag, prompt, include, exclude}."""
        prompts = []
        rows = read_benchmark(options.sources, options.split, ("tag", "prompt", "include"))
        for number, (place, row) in enumerate(rows):
            text_of(row, "tag", place)
            try:
                specified = {key: clauses(row[key]) for key in ("include", "exclude") if row.get(key)}
            except DataError as error:
                raise DataError(f"{place}: {error.problem}", fix=error.fix) from error
            if "include" not in specified:
                raise DataError(f"{place} has no include clause.", fix="use GenEval's evaluation_metadata.jsonl.")
            prompts.append(Prompt(f"{number:05}", text_of(row, "prompt", place), {**row, **specified}, place))
        return prompts

    def open(self, options: GenEvalOptions, policy: Policy) -> ScoreImages:
        """Detector and CLIP, on the policy's device, with the original thresholds."""
        device, thresholds, size = device_of(policy), Thresholds(), options.batch_size
        detector = Detector.open(
            options.detector, device, key="eval.suite.detector", threshold=thresholds.general, batch_size=size
        )
        clip = Clip.open(options.clip, device, key="eval.suite.clip", batch_size=size)

        def score(prompts: Sequence[Prompt], images: Sequence[Sequence[Image.Image]]) -> list[list[ImageScore]]:
            rows = [prompt.row for prompt, own in zip(prompts, images, strict=True) for _ in own]
            asked = [GenEvalSpec.of(row["include"], row.get("exclude"), row["tag"]) for row in rows]
            results = evaluate_images(list(chain.from_iterable(images)), asked, detector, clip, thresholds)
            scores = iter(
                ImageScore(one.correct, {row["tag"]: [one.correct]}, {"tag": row["tag"], "detected": dict(one.counts)})
                for row, one in zip(rows, results, strict=True)
            )
            return [[next(scores) for _ in own] for own in images]

        return score

    def weights(self, prompts: Sequence[Prompt]) -> Mapping[str, float]:
        """The mean over tasks."""
        tags = dict.fromkeys(prompt.row["tag"] for prompt in prompts)
        return {tag: 1 / len(tags) for tag in tags}

    def write(self, folder: Path, prompt: Prompt, images: Sequence[Image.Image]) -> None:
        """`00000/metadata.jsonl`, `00000/samples/0000.png` and `00000/grid.png`, as evaluate_images.py reads them."""
        for number, image in enumerate(images):
            save_image(image, folder / prompt.name / "samples" / f"{number:04}.png")
        save_image(tile(images, columns=2), folder / prompt.name / "grid.png")
        row: dict[str, Any] = {key: value for key, value in prompt.row.items() if value is not None}
        (folder / prompt.name / "metadata.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
