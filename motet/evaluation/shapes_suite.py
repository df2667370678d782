"""The shapes suite: how well a policy draws and answers on items that training never sees.

Every item is sampled `samples_per_item` times at temperature 1 and once greedily: image generation by denoising takes
stochastic steps, and greedily follows the ODE. Accuracy is the mean over items and samples, by the strict verifier and
the strict answer parser; pass@k counts items that any of the k samples solves.
Where `eval.minutes` are over before all items are measured, fewer are; `items` says how many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from motet.config import EvalConfig, ShapesSuiteOptions
from motet.config.options import read_options
from motet.core.errors import ConfigError
from motet.core.protocols import Policy, Request
from motet.core.task import Task
from motet.core.trajectory import ActKind, DenoisingSteps, ImageTokens, Sampling, TextTokens
from motet.rewards.text.answer_parsing import extract_answer
from motet.shapes.verifier import parse_scenes, verify
from motet.shapes.world import HARD_CATEGORIES, ShapesRows

Table = dict[str, float]
ITEMS_PER_BATCH = 32
SPECIMENS = 40
PLAIN = Sampling()


@dataclass(frozen=True)
class SampleImage:
    """One drawn picture with its prompt and whether it is right: what the picture grids show."""

    prompt: str
    image: Image.Image
    correct: bool


@dataclass(frozen=True)
class SuiteResult:
    """Numbers of the suite in the shape of `summary.json`, and the first samples of 40 prompts, hard ones first."""

    table: dict[str, Any]
    specimens: list[SampleImage]


def evaluate_shapes(
    policy: Policy,
    config: EvalConfig,
    options: dict[str, Any],
    max_tokens: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
    denoising: Sampling = PLAIN,
) -> SuiteResult:
    """Run the suite. `options` are the world's (`data.options`); `progress(done, total)` is told after every batch.

    `denoising` says how a policy draws that has no image tokens; guidance and temperature are the suite's own. Raises
    ConfigError when the policy's pictures are of a size that the world's grid cannot be read from.
    """
    shapes = read_options(config.suite, ShapesSuiteOptions, "eval.suite")
    sizes = {"test": config.size, "held_out": shapes.held_out_size}
    total = 2 * sum(sizes.values())
    began = time.monotonic()
    drawing = _guided(Sampling() if "image" in policy.kinds else denoising, shapes.guidance_scale)
    rows = {split: ShapesRows(split, config.seed, options, size) for split, size in sizes.items()}
    measured = {split: {"draw": _Tally(), "answer": _Tally()} for split in sizes}
    items = dict.fromkeys(sizes, 0)
    specimens: dict[bool, list[SampleImage]] = {True: [], False: []}
    done = 0
    for split, numbers in _batches(sizes):
        if config.minutes is not None and all(items.values()) and time.monotonic() - began > 60 * config.minutes:
            progress(total, total)
            break
        tasks = [Task(i, rows[split].row(i)) for i in numbers]
        for name, attempt in (("draw", _draw), ("answer", _answer)):
            sampling = drawing if name == "draw" else Sampling(max_tokens=max_tokens)
            sampled = attempt(policy, tasks, sampling, config.samples_per_item, config.seed)
            greedy = attempt(policy, tasks, replace(sampling, temperature=0.0), 1, config.seed)
            measured[split][name].add([_labels(name, task) for task in tasks], sampled, greedy)
            if name == "draw" and split == "test":
                for task, shots in zip(tasks, sampled.specimens, strict=True):
                    specimens[task["category"] in HARD_CATEGORIES].append(shots[0])
            done += len(tasks)
            progress(done, total)
        items[split] += len(tasks)
    return SuiteResult(
        _summary(measured, config.samples_per_item, items), (specimens[True] + specimens[False])[:SPECIMENS]
    )


def _batches(sizes: Mapping[str, int]) -> list[tuple[str, range]]:
    """The items of each split in batches, in an order in which the splits end together: time may run out at any."""
    starts = [
        (start / size, split, start) for split, size in sizes.items() for start in range(0, size, ITEMS_PER_BATCH)
    ]
    return [(split, range(start, min(sizes[split], start + ITEMS_PER_BATCH))) for _, split, start in sorted(starts)]


def _guided(sampling: Sampling, scale: float) -> Sampling:
    return replace(sampling, guidance="none" if scale == 1 else "guided", guidance_scale=scale)


@dataclass(frozen=True)
class _Attempts:
    """Per item, per sample: right or wrong; and the drawings."""

    correct: list[list[bool]]
    specimens: list[list[SampleImage]]


class _Tally:
    """Outcomes per item, by category or kind."""

    def __init__(self) -> None:
        self.sampled: dict[str, list[float]] = {}
        self.greedy: dict[str, list[float]] = {}
        self.passed: dict[str, list[float]] = {}

    def add(self, labels: Sequence[Sequence[str]], sampled: _Attempts, greedy: _Attempts) -> None:
        for own, shots, best in zip(labels, sampled.correct, greedy.correct, strict=True):
            for key in ("overall", *own):
                self.sampled.setdefault(key, []).append(sum(shots) / len(shots))
                self.greedy.setdefault(key, []).append(float(best[0]))
                self.passed.setdefault(key, []).append(float(any(shots)))


def _labels(skill: str, task: Task) -> list[str]:
    """The rows of the table in which an item counts, beside `overall`."""
    if skill == "draw":
        return [task["category"]]
    return [task["kind"], "multiple choice" if task["options"] else "open-ended"]


def _means(values: dict[str, list[float]]) -> Table:
    return {
        key: round(sum(values[key]) / len(values[key]), 4) for key in sorted(values, key=lambda k: (k != "overall", k))
    }


def _summary(measured: dict[str, dict[str, _Tally]], pass_at: int, items: dict[str, int]) -> dict[str, Any]:
    def view(of: Callable[[_Tally], dict[str, list[float]]], split: str) -> dict[str, Table]:
        return {name: _means(of(tally)) for name, tally in measured[split].items()}

    sections = {
        None: lambda tally: tally.sampled,
        "greedy": lambda tally: tally.greedy,
        f"pass@{pass_at}": lambda tally: tally.passed,
    }
    summary: dict[str, Any] = {}
    for section, of in sections.items():
        numbers = {**view(of, "test"), "held_out": view(of, "held_out")}
        summary |= numbers if section is None else {section: numbers}
    by_item = {split: {name: tally.sampled for name, tally in tallies.items()} for split, tallies in measured.items()}
    return {**summary, "items": items, "by_item": {**by_item.pop("test"), **by_item}}


def _requests(kind: ActKind, tasks: Sequence[Task], samples: int, seed: int) -> list[Request]:
    contexts = [task.question if kind == "text" else task.prompt for task in tasks]
    return [
        Request(kind, kind, context, (seed, task.index, sample, int(kind == "text")))
        for task, context in zip(tasks, contexts, strict=True)
        for sample in range(samples)
    ]


def _draw(policy: Policy, tasks: Sequence[Task], sampling: Sampling, samples: int, seed: int) -> _Attempts:
    kind: ActKind = "image" if "image" in policy.kinds else "denoising"
    acts = policy.act(_requests(kind, tasks, samples, seed), sampling)
    images = [act.image for act in acts if isinstance(act, ImageTokens | DenoisingSteps)]
    grid = int(tasks[0]["spec"]["grid"])
    side = images[0].width
    if side % grid or side // grid < 6:
        raise ConfigError(
            f"The policy draws pictures {side} pixels wide, from which a grid of {grid} x {grid} cells cannot be read.",
            fix="measure in the world that it was trained on: data.options, or motet eval --world grid=2.",
        )
    parsed = parse_scenes(images, grid)
    specimens = [
        [
            SampleImage(task["prompt"], images[k], verify(parsed[k], task["spec"]).correct)
            for k in range(n * samples, (n + 1) * samples)
        ]
        for n, task in enumerate(tasks)
    ]
    return _Attempts([[s.correct for s in shots] for shots in specimens], specimens)


def _answer(policy: Policy, tasks: Sequence[Task], sampling: Sampling, samples: int, seed: int) -> _Attempts:
    acts = policy.act(_requests("text", tasks, samples, seed), sampling)
    texts = [act.text for act in acts if isinstance(act, TextTokens)]
    correct = [
        [is_right(texts[k], task["answer"]) for k in range(n * samples, (n + 1) * samples)]
        for n, task in enumerate(tasks)
    ]
    return _Attempts(correct, [])


def is_right(text: str, answer: str) -> bool:
    """Whether a completion has exactly one answer block and it holds the answer: the letter, or the word."""
    given = extract_answer(text)
    return given is not None and given.strip().lower() == answer.strip().lower()
