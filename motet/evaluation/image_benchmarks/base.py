"""What the benchmarks of image generation share: prompts, images of the policy, scores, a table, and files."""

from __future__ import annotations

import json
import random
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from pydantic import Field
from rich.table import Table

from motet.config import EvalConfig
from motet.config.options import read_options
from motet.config.section import Section
from motet.core.act_kinds import act_kind, kinds_making
from motet.core.conversation import user
from motet.core.errors import ConfigError, OutputError
from motet.core.protocols import Policy, Request
from motet.core.sampling import Sampling
from motet.core.trajectory import ImageAct
from motet.core.write_errors import write_error
from motet.evaluation.image_benchmarks.prompts import Prompt
from motet.evaluation.image_benchmarks.scores import ImageScore, benchmark_table, summarize
from motet.training.setup import sampling_params
from motet.training.suites import Suite, SuiteResult, SuiteSettings

PROMPTS_PER_BATCH = 8
MAX_SAMPLES = 40
RESULTS = "results.jsonl"

ScoreImages = Callable[[Sequence[Prompt], Sequence[Sequence[Image.Image]]], list[list[ImageScore]]]
"""(prompts, the images of each) -> the scores of each."""


class BenchmarkOptions(Section):
    """Options that all benchmarks of image generation have."""

    prompts: str | tuple[str, ...]
    """The benchmark's own file of prompts, or several; or the hub id of a dataset with the same columns."""
    split: str = "train"
    """Split of a hub dataset; a file is used whole."""
    guidance_scale: float | None = Field(default=None, ge=1.0)
    """Classifier-free guidance scale; None: as the recipe's `sampling` says."""

    @property
    def sources(self) -> tuple[str, ...]:
        """The files or hub ids."""
        return (self.prompts,) if isinstance(self.prompts, str) else self.prompts


class ImageBenchmark(Suite):
    """A benchmark that scores images of fixed prompts, `eval.samples_per_item` of each.

    `eval.size` prompts are evaluated, at random (`eval.seed`) if the file has more. Images are sampled as the recipe's
    `sampling` says; denoising follows the ODE.
    """

    shares_items = True
    samples_title = "first samples"
    name: ClassVar[str]
    title: ClassVar[str]
    Settings: ClassVar[type[BenchmarkOptions]]

    def read(self, options: Any) -> list[Prompt]:
        """The prompts. Raises DataError."""
        raise NotImplementedError

    def open(self, options: Any, policy: Policy) -> ScoreImages:
        """Load the models that score. Raises ConfigError."""
        raise NotImplementedError

    def weights(self, prompts: Sequence[Prompt]) -> Mapping[str, float]:
        """Of the groups whose weighted mean is the overall score."""
        raise NotImplementedError

    def write(self, folder: Path, prompt: Prompt, images: Sequence[Image.Image]) -> None:
        """Write a prompt's images as the benchmark's own evaluator expects them. Raises OSError."""
        raise NotImplementedError

    def check(self, policy: Policy) -> None:
        """It generates images."""
        if not kinds_making("image", policy.kinds):
            raise ConfigError(
                f"eval.suite={self.name} needs images, but the policy generates only: "
                f"{', '.join(sorted(policy.kinds))}.",
                fix="set eval.suite to another suite, or choose a policy that generates images.",
            )

    def __call__(self, policy: Policy, settings: SuiteSettings) -> SuiteResult:
        """Quick: at most 256 prompts with 2 images each."""
        recipe = settings.recipe
        options = read_options(recipe.eval.suite, self.Settings, "eval.suite")
        prompts, config = self.read(options), _limited(recipe.eval, settings)
        same = settings.same_items_as
        numbers = _chosen(len(prompts), config) if same is None else list(same["prompts"])
        draw = _Generator.of(policy, sampling_params(recipe), options.guidance_scale, config)
        scorer, processes = self.open(options, policy), settings.setup.processes
        scored: list[tuple[int, Prompt, list[ImageScore]]] = []
        samples: list[tuple[Image.Image, str, bool]] = []
        if settings.folder is not None:
            (settings.folder / RESULTS).unlink(missing_ok=True)
        started = time.monotonic()
        for start in range(0, len(numbers), PROMPTS_PER_BATCH * processes.size):
            over = config.minutes is not None and time.monotonic() - started > 60 * config.minutes
            if start and processes.broadcast(over):
                settings.progress(len(numbers), len(numbers))
                break
            batch = numbers[start : start + PROMPTS_PER_BATCH * processes.size]
            with processes.phase("evaluation"):
                own = processes.own(batch)
                images = draw(own, [prompts[n] for n in own])
                scores = scorer([prompts[n] for n in own], images) if own else []
                self._write_all(settings.folder, [prompts[n] for n in own], images, scores)
            merged = processes.merge(scores)
            scored += [(n, prompts[n], one) for n, one in zip(batch, merged, strict=True)]
            if len(samples) < MAX_SAMPLES:
                firsts = processes.merge([each[0] for each in images])
                samples += [(i, p.text, _is_right(s[0])) for i, (_, p, s) in zip(firsts, scored[start:], strict=True)]
            settings.progress(start + len(batch), len(numbers))
        table = summarize(sorted(scored, key=lambda one: one[0]), self.weights(prompts))
        self._warn_of_unscored(table)
        metrics, intervals = (self._by_metric(table, value) for value in ("mean", "interval"))
        return SuiteResult(table, metrics, samples[:MAX_SAMPLES], intervals)

    def show(self, tables: Mapping[str, Mapping[str, Any]]) -> Table:
        """The overall score and those of its groups."""
        return benchmark_table(tables, self.title)

    def _by_metric(self, table: Mapping[str, Any], value: str) -> dict[str, float]:
        """A value of the overall score and of its groups, by name of the metric."""
        entries = {self.name: table["overall"]}
        entries |= {f"{self.name}/{group}": entry for group, entry in table["groups"].items()}
        return {name: entry[value] for name, entry in entries.items() if entry[value] is not None}

    def _warn_of_unscored(self, table: Mapping[str, Any]) -> None:
        if unscored := table["unscored"]:
            warnings.warn(
                f"{self.name}: {len(unscored)} of {table['images']} images have no score and are left out of the means "
                f"(listed as `unscored`); the first, of prompt {unscored[0]['prompt']}: {unscored[0]['reason']}",
                stacklevel=2,
            )

    def _write_all(
        self,
        folder: Path | None,
        prompts: Sequence[Prompt],
        images: Sequence[Sequence[Image.Image]],
        scores: Sequence[Sequence[ImageScore]],
    ) -> None:
        """The images as the benchmark lays them out, and a line of `results.jsonl` for each."""
        if folder is None:
            return
        try:
            with open(folder / RESULTS, "a", encoding="utf-8") as file:
                for prompt, own, scored in zip(prompts, images, scores, strict=True):
                    self.write(folder, prompt, own)
                    for number, score in enumerate(scored):
                        line = {"prompt": prompt.name, "image": number, "score": score.value, "text": prompt.text}
                        line |= {"reason": score.reason, **score.details}
                        file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise write_error(OutputError, repr(str(folder)), error) from error


def _limited(config: EvalConfig, settings: SuiteSettings) -> EvalConfig:
    """The settings of this evaluation: fewer items for a quick one, no time limit for one that repeats another."""
    if settings.quick:
        few = {"size": min(256, config.size), "samples_per_item": min(2, config.samples_per_item)}
        return config.model_copy(update={**few, "minutes": None})
    return config if settings.same_items_as is None else config.model_copy(update={"minutes": None})


def _chosen(total: int, config: EvalConfig) -> list[int]:
    """The prompts to evaluate, in random order, so that a time limit cuts all groups alike."""
    numbers = list(range(total))
    random.Random(config.seed).shuffle(numbers)
    return numbers[: config.size]


def _is_right(score: ImageScore) -> bool:
    return score.value is not None and score.value >= 1


@dataclass(frozen=True)
class _Generator:
    """Generates the images of prompts; equal seeds and prompt numbers give equal images in any batch."""

    policy: Policy
    kind: str
    sampling: Sampling
    samples: int
    seed: int

    @classmethod
    def of(
        cls, policy: Policy, samplings: Mapping[str, Sampling], guidance: float | None, config: EvalConfig
    ) -> _Generator:
        kind = kinds_making("image", policy.kinds)[0]
        sampling = replace(samplings[kind], **act_kind(kind).interactive)
        if guidance is not None:
            sampling = replace(sampling, guidance="none" if guidance == 1 else "guided", guidance_scale=guidance)
        return cls(policy, kind, sampling, config.samples_per_item, config.seed)

    def __call__(self, numbers: Sequence[int], prompts: Sequence[Prompt]) -> list[list[Image.Image]]:
        requests = [
            Request(self.kind, self.kind, user(prompt.text), (self.seed, number, sample), trained=False)
            for number, prompt in zip(numbers, prompts, strict=True)
            for sample in range(self.samples)
        ]
        images = [act.image for act in self.policy.act(requests, self.sampling) if isinstance(act, ImageAct)]
        return [images[start : start + self.samples] for start in range(0, len(images), self.samples)]


def tile(images: Sequence[Image.Image], columns: int) -> Image.Image:
    """Images of one size side by side, row by row, without borders."""
    width, height = images[0].size
    rows = -(-len(images) // columns)
    grid = Image.new("RGB", (width * columns, height * rows))
    for place, image in enumerate(images):
        grid.paste(image, (place % columns * width, place // columns * height))
    return grid
