"""The shapes suite: accuracy of image generation and answering on validation items and held-out compositions.

Of the large world, also on the compositions that only one of the two was trained on, `only_drawn` and `only_asked`;
images of these three sets also by what of the set the prompt names: its colour, its relation, or a pair of other words.

Every item is sampled `samples_per_item` times at temperature 1 and once greedily; denoising uses stochastic steps or
the ODE, respectively. Accuracy is the mean over items and samples, by the verifier and the reward `exact_answer`;
pass@k is the probability that any of k samples solves an item, for powers of two and for all samples. `diversity` tells
how many colours, shapes, sizes and cells the images of validation prompts use where these are open. If `eval.minutes`
are over before all items are evaluated, fewer are; `items` is their number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from motet.config import EvalConfig, ShapesSuiteOptions
from motet.config.options import read_options
from motet.core.act_kinds import act_kind, kinds_making
from motet.core.errors import ConfigError
from motet.core.protocols import Policy, Request
from motet.core.sampling import Sampling
from motet.core.task import Task
from motet.core.trajectory import ImageAct, TextAct
from motet.distributed.processes import Processes
from motet.evaluation.sample_image import SampleImage
from motet.evaluation.scene_diversity import Values, effective_numbers, open_values
from motet.rewards.text.exact_match import exact_answer
from motet.shapes.large.prompts import HARD_CATEGORIES as HARD_IN_LARGE
from motet.shapes.large.prompts import part_of_set
from motet.shapes.large.vocabulary import SETS
from motet.shapes.verifier import parse_scenes, verify
from motet.shapes.world import HARD_CATEGORIES, evaluation_splits, open_world

Table = dict[str, float]
ITEMS_PER_BATCH = 32
MAX_SAMPLES = 40


@dataclass(frozen=True)
class SuiteResult:
    """Results in the form of `summary.json`, and the first samples of 40 prompts, hard ones first."""

    table: dict[str, Any]
    samples: list[SampleImage]


def evaluate_shapes(
    policy: Policy,
    config: EvalConfig,
    options: dict[str, Any],
    samplings: Mapping[str, Sampling],
    progress: Callable[[int, int], None] = lambda done, total: None,
    processes: Processes | None = None,
) -> SuiteResult:
    """Run the suite. `options` are the world's (`data.options`); `progress(done, total)` is called after every batch.

    The `processes` of a run share the items of every batch, and each gets the whole result.

    `samplings` are the recipe's, by kind of act; temperature, truncation and guidance are set by the suite. Raises
    ConfigError if the policy's images are too small or not divisible for the world's grid.
    """
    shapes = read_options(config.suite, ShapesSuiteOptions, "eval.suite")
    splits = evaluation_splits(options)
    sizes = {split: config.size if split == "test" else shapes.held_out_size for split in splits}
    total = 2 * sum(sizes.values())
    started = time.monotonic()
    plain = {kind: plain_sampling(samplings[kind]) for kind in policy.kinds}
    image_kind, text_kind = kinds_making("image", plain)[0], kinds_making("text", plain)[0]
    plain[image_kind] = _with_guidance(plain[image_kind], shapes.guidance_scale)
    rows = {split: open_world(split, config.seed, options, size) for split, size in sizes.items()}
    measured = {split: {"draw": _Tally(), "answer": _Tally()} for split in sizes}
    items = dict.fromkeys(sizes, 0)
    samples: dict[bool, list[SampleImage]] = {True: [], False: []}
    done = 0
    processes = processes or Processes()
    for split, numbers in _batches(sizes, ITEMS_PER_BATCH * processes.size):
        limited = config.minutes is not None and all(items.values())
        if processes.broadcast(limited and time.monotonic() - started > 60 * (config.minutes or 0)):
            progress(done, done)
            break
        tasks = [Task(i, rows[split].row(i)) for i in numbers]
        for name, sample_items, kind in (("draw", _generate_images, image_kind), ("answer", _answer, text_kind)):
            with processes.phase("evaluation"):
                own = processes.own(tasks)
                requests = _requests(kind, own, config.samples_per_item, config.seed)
                sampled = sample_items(policy, own, requests, plain[kind])
                requests = _requests(kind, own, 1, config.seed)
                greedy = sample_items(policy, own, requests, replace(plain[kind], temperature=0.0))
            shown = name == "draw" and split == "test" and len(samples[True]) < MAX_SAMPLES
            sampled, greedy = _merge(processes, sampled, shown), _merge(processes, greedy, False)
            measured[split][name].add([_labels(name, split, task) for task in tasks], sampled, greedy)
            if shown:
                for task, first in zip(tasks, sampled.samples, strict=True):
                    samples[task["category"] in (*HARD_CATEGORIES, *HARD_IN_LARGE)].append(first)
            done += len(tasks)
            progress(done, total)
        items[split] += len(tasks)
    return SuiteResult(
        _summary(measured, config.samples_per_item, items), (samples[True] + samples[False])[:MAX_SAMPLES]
    )


def _batches(sizes: Mapping[str, int], per_batch: int) -> list[tuple[str, range]]:
    """The items of each split in batches, interleaved so that a time limit cuts both splits alike."""
    starts = [(start / size, split, start) for split, size in sizes.items() for start in range(0, size, per_batch)]
    return [(split, range(start, min(sizes[split], start + per_batch))) for _, split, start in sorted(starts)]


def plain_sampling(sampling: Sampling) -> Sampling:
    """The sampling at temperature 1 without truncation or guidance: what the suite takes of a recipe's settings."""
    whole = {"temperature": 1.0, "top_k": None, "top_p": None, "min_p": None}
    return replace(sampling, **whole, guidance="none", guidance_scale=1.0)


def _with_guidance(sampling: Sampling, scale: float) -> Sampling:
    return replace(sampling, guidance="none" if scale == 1 else "guided", guidance_scale=scale)


@dataclass(frozen=True)
class _Results:
    """By item: correctness per sample, the first image, and what the images show where the prompt is open."""

    correct: list[list[bool]]
    samples: list[SampleImage]
    values: list[Values]


def _merge(processes: Processes, own: _Results, shown: bool) -> _Results:
    """The results of all processes, with the images where they are to be shown."""
    samples = processes.merge(own.samples) if shown else []
    return _Results(processes.merge(own.correct), samples, processes.merge(own.values))


class _Tally:
    """Results per item, by category or question type."""

    def __init__(self) -> None:
        self.sampled: dict[str, list[float]] = {}
        self.greedy: dict[str, list[float]] = {}
        self.values: Values = []

    def add(self, labels: Sequence[Sequence[str]], sampled: _Results, greedy: _Results) -> None:
        self.values += [value for of_item in sampled.values for value in of_item]
        for own, samples_of_item, best in zip(labels, sampled.correct, greedy.correct, strict=True):
            for key in ("overall", *own):
                self.sampled.setdefault(key, []).append(sum(samples_of_item) / len(samples_of_item))
                self.greedy.setdefault(key, []).append(float(best[0]))

    def passed(self, k: int, num_samples: int) -> dict[str, list[float]]:
        """pass@k per item, estimated without bias from more samples than k."""
        return {
            key: [pass_at_k(round(mean * num_samples), num_samples, k) for mean in means]
            for key, means in self.sampled.items()
        }


def _labels(skill: str, split: str, task: Task) -> list[str]:
    """The rows of the table to which an item contributes, besides `overall`."""
    if skill == "answer":
        return [task["kind"], "multiple choice" if task["options"] else "open-ended"]
    if split in SETS and task["spec"].get("world") == "large":  # the small world has a `held_out` too, without parts
        return [task["category"], f"names a {part_of_set(task['spec'], split)}"]
    return [task["category"]]


def _means(values: dict[str, list[float]]) -> Table:
    return {
        key: round(sum(values[key]) / len(values[key]), 4) for key in sorted(values, key=lambda k: (k != "overall", k))
    }


def pass_at_k(num_correct: int, num_samples: int, k: int) -> float:
    """Probability that k of the samples, drawn without replacement, have a correct one (Codex, 2107.03374, eq. 1)."""
    return 1 - math.comb(num_samples - num_correct, k) / math.comb(num_samples, k)


def _budgets(num_samples: int) -> list[int]:
    """2, 4, 8 and so on below the number of samples, and that number."""
    return [*(2**power for power in range(1, num_samples.bit_length()) if 2**power < num_samples), num_samples]


def _summary(measured: dict[str, dict[str, _Tally]], num_samples: int, items: dict[str, int]) -> dict[str, Any]:
    def view(of: Callable[[_Tally], dict[str, list[float]]], split: str) -> dict[str, Table]:
        return {name: _means(of(tally)) for name, tally in measured[split].items()}

    sections = {
        None: lambda tally: tally.sampled,
        "greedy": lambda tally: tally.greedy,
        **{f"pass@{k}": partial(_Tally.passed, k=k, num_samples=num_samples) for k in _budgets(num_samples)},
    }
    summary: dict[str, Any] = {}
    for section, of in sections.items():
        numbers = {**view(of, "test"), **{split: view(of, split) for split in measured if split != "test"}}
        summary |= numbers if section is None else {section: numbers}
    by_item = {split: {name: tally.sampled for name, tally in tallies.items()} for split, tallies in measured.items()}
    summary["diversity"] = effective_numbers(measured["test"]["draw"].values)
    return {**summary, "items": items, "by_item": {**by_item.pop("test"), **by_item}}


def _requests(kind: str, tasks: Sequence[Task], num_samples: int, seed: int) -> list[Request]:
    is_text = act_kind(kind).makes == "text"
    contexts = [task.question if is_text else task.prompt for task in tasks]
    return [
        Request(kind, kind, context, (seed, task.index, sample, int(is_text)))
        for task, context in zip(tasks, contexts, strict=True)
        for sample in range(num_samples)
    ]


def _generate_images(
    policy: Policy, tasks: Sequence[Task], requests: Sequence[Request], sampling: Sampling
) -> _Results:
    if not tasks:
        return _Results([], [], [])
    images = [act.image for act in policy.act(requests, sampling) if isinstance(act, ImageAct)]
    num_samples = len(images) // len(tasks)
    grid = int(tasks[0]["spec"]["grid"])
    side = images[0].width
    if side % grid or side // grid < 6:
        raise ConfigError(
            f"The policy's images are {side} pixels wide and cannot be divided into a grid of {grid} x {grid} cells.",
            fix="evaluate in the world that it was trained on: set data.options, or motet eval --world grid=2.",
        )
    parsed = parse_scenes(images, grid, tasks[0]["spec"].get("world", "small"))
    samples = [
        [
            SampleImage(task["prompt"], images[k], verify(parsed[k], task["spec"]).correct)
            for k in range(n * num_samples, (n + 1) * num_samples)
        ]
        for n, task in enumerate(tasks)
    ]
    correct = [[s.correct for s in samples_of_item] for samples_of_item in samples]
    values = [
        [
            value
            for one in parsed[n * num_samples : (n + 1) * num_samples]
            for value in open_values(one.scene, task["spec"])
        ]
        for n, task in enumerate(tasks)
    ]
    return _Results(correct, [samples_of_item[0] for samples_of_item in samples], values)


def _answer(policy: Policy, tasks: Sequence[Task], requests: Sequence[Request], sampling: Sampling) -> _Results:
    if not tasks:
        return _Results([], [], [])
    texts = [act.text for act in policy.act(requests, sampling) if isinstance(act, TextAct)]
    num_samples = len(texts) // len(tasks)
    correct = [
        [is_right(texts[k], task["answer"], task["options"]) for k in range(n * num_samples, (n + 1) * num_samples)]
        for n, task in enumerate(tasks)
    ]
    return _Results(correct, [], [])


def is_right(text: str, answer: str, options: Sequence[str]) -> bool:
    """Whether a completion answers correctly by the reward `exact_answer`, so that training and suite agree."""
    return exact_answer([text], answer=[answer], options=[options])[0] == 1.0
