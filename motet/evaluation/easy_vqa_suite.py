"""The suite `easy_vqa`: accuracy of answers and of generated images on the test split of easy-VQA.

`eval.size` questions and captions, spread evenly over the package's test split (9,673 and 880), each sampled
`samples_per_item` times at temperature 1 and once greedily. An answer is the one `<answer>` block and must equal the
gold answer in normal form, as in the reward `open_ended`; an image is correct by the verifier of
`motet.shapes.easy_vqa`. After `eval.minutes` no further batch is started; `items` is what was evaluated.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rich.table import Table

from motet.config import DataConfig
from motet.config.schema import NoOptions
from motet.core.act_kinds import kinds_making
from motet.core.errors import ConfigError
from motet.core.protocols import Policy, Request
from motet.core.sampling import Sampling
from motet.core.task import Task
from motet.core.trajectory import ImageAct, TextAct
from motet.data import Rows, open_rows
from motet.evaluation.shapes_suite import plain_sampling
from motet.numerics.statistics import item_interval, paired_interval
from motet.report.tables import signed
from motet.rewards.text.answer_parsing import extract_answer, same_answer
from motet.shapes.easy_vqa import find_shape
from motet.training.setup import sampling_params
from motet.training.suites import Suite, SuiteResult, SuiteSettings

SKILLS = {"answer": "questions", "image": "captions"}
"""What is evaluated -> the task of the source."""
ITEMS_PER_BATCH = 32
MAX_SAMPLES = 40

Shown = list[tuple[Any, str, bool]]
"""Generated images with their prompts, and whether each is correct."""


class EasyVqaSuite(Suite):
    """Answers and images on the test split of easy-VQA; of what the policy does not generate, nothing."""

    Settings = NoOptions
    default_samples = 4

    def check(self, policy: Policy) -> None:
        """It generates text or images."""
        if not any(kinds_making(makes, policy.kinds) for makes in ("text", "image")):
            raise ConfigError(
                f"eval.suite=easy_vqa needs a policy that generates text or images, not only: "
                f"{', '.join(sorted(policy.kinds))}.",
                fix="set eval.suite to another suite, or choose such a policy.",
            )

    def __call__(self, policy: Policy, settings: SuiteSettings) -> SuiteResult:
        """Quick: 128 items of each, 2 samples."""
        config, same = settings.recipe.eval, settings.same_items_as
        size, samples, minutes = config.size, config.samples_per_item, config.minutes
        if settings.quick:
            size, samples, minutes = min(128, size), min(2, samples), None
        skills = [skill for skill in SKILLS if kinds_making("text" if skill == "answer" else "image", policy.kinds)]
        opened = {skill: _rows(SKILLS[skill], size) for skill in skills}
        if same is not None:
            opened, minutes = {skill: opened[skill][: same[skill]["overall"]["items"]] for skill in skills}, None
        started, table, shown = time.monotonic(), dict[str, Any](), Shown()
        total, done = sum(map(len, opened.values())), 0
        for number, (skill, tasks) in enumerate(opened.items(), start=1):
            scores: list[_Item] = []
            for start in range(0, len(tasks), ITEMS_PER_BATCH):
                limit = None if minutes is None else 60 * minutes * number / len(opened)
                if start and limit is not None and time.monotonic() - started > limit:
                    break
                batch = tasks[start : start + ITEMS_PER_BATCH]
                scored, images = _evaluate(policy, skill, batch, samples, settings)
                scores, shown, done = scores + scored, shown + images, done + len(batch)
                settings.progress(done, total)
            table[skill] = _by_label(scores)
        if done < total:  # the time was over
            settings.progress(done, done)
        metrics = {skill: part["overall"]["accuracy"] for skill, part in table.items()}
        metrics |= {f"{skill}_greedy": part["overall"]["greedy"] for skill, part in table.items()}
        halves = {skill: part["overall"]["interval"] for skill, part in table.items()}
        intervals = {skill: half for skill, half in halves.items() if half is not None}
        return SuiteResult(table, metrics, shown[:MAX_SAMPLES], intervals)

    def show(self, tables: Mapping[str, Mapping[str, Any]]) -> Table:
        """Accuracies by type of question and by shape, with 95% intervals; that of the change is paired by item."""
        shown = Table("", *tables, title="easy-VQA, test split", title_justify="left")
        results = list(tables.values())
        if len(results) == 2:
            shown.add_column("change")
        shown.add_column("greedy")
        for skill, labels in results[0].items():
            for label in labels:
                entries = [result[skill][label] for result in results]
                cells = [f"{e['accuracy']:.3f} \u00b1 {item_interval(e['by_item'])[1]:.3f}" for e in entries]
                if len(entries) == 2:
                    cells.append(signed(paired_interval(*(entry["by_item"] for entry in entries))))
                greedy = " \u2192 ".join(f"{entry['greedy']:.3f}" for entry in entries)
                shown.add_row(f"{skill}: {label}", *cells, greedy)
        return shown


_Item = tuple[str, float, float]
"""Type of the question or shape, fraction of the samples that are correct, whether the greedy one is."""


def _rows(task: str, size: int) -> list[Task]:
    """`size` rows of the test split, at equal distances; all of it if it has fewer."""
    rows: Rows = open_rows(DataConfig(source="easy_vqa", split="test", options={"task": task}), check=False)
    count = min(size, len(rows))
    return [rows.task(n * len(rows) // count, index=n) for n in range(count)]


def _evaluate(
    policy: Policy, skill: str, tasks: Sequence[Task], num_samples: int, settings: SuiteSettings
) -> tuple[list[_Item], Shown]:
    kind = kinds_making("text" if skill == "answer" else "image", policy.kinds)[0]
    sampling = plain_sampling(sampling_params(settings.recipe)[kind])
    seed, score = settings.recipe.eval.seed, _answers if skill == "answer" else _images

    def run(samples: int, sampling: Sampling) -> tuple[list[list[bool]], Shown]:
        contexts = [task.question if skill == "answer" else task.prompt for task in tasks]
        requests = [
            Request(kind, kind, context, (seed, task.index, sample, list(SKILLS).index(skill)))
            for task, context in zip(tasks, contexts, strict=True)
            for sample in range(samples)
        ]
        correct, shown = score([task for task in tasks for _ in range(samples)], policy.act(requests, sampling))
        return [correct[n : n + samples] for n in range(0, len(correct), samples)], shown[::samples]

    sampled, shown = run(num_samples, sampling)
    greedy, _ = run(1, replace(sampling, temperature=0.0))
    labels = [task["kind"] if skill == "answer" else task["shape"] for task in tasks]
    return [
        (label, sum(own) / len(own), float(best[0])) for label, own, best in zip(labels, sampled, greedy, strict=True)
    ], shown


def _answers(tasks: Sequence[Task], acts: Sequence[Any]) -> tuple[list[bool], Shown]:
    texts = [extract_answer(act.text) if isinstance(act, TextAct) else None for act in acts]
    correct = [text is not None and same_answer(text, task["answer"]) for task, text in zip(tasks, texts, strict=True)]
    return correct, []


def _images(tasks: Sequence[Task], acts: Sequence[Any]) -> tuple[list[bool], Shown]:
    shown: Shown = []
    for task, act in zip(tasks, acts, strict=True):
        assert isinstance(act, ImageAct)
        found = find_shape(act.image)
        shown.append((act.image, task["prompt"], (found.colour, found.shape) == (task["colour"], task["shape"])))
    return [correct for _, _, correct in shown], shown


def _by_label(scores: Sequence[_Item]) -> dict[str, dict[str, Any]]:
    """`overall`, then every label, each with accuracy, its interval, greedy accuracy, items and values by item."""
    table = {}
    for label in ("overall", *sorted({label for label, _, _ in scores})):
        own = [(sampled, greedy) for name, sampled, greedy in scores if label in ("overall", name)]
        by_item = [round(sampled, 4) for sampled, _ in own]
        mean, half = item_interval(by_item)
        greedy = sum(best for _, best in own) / len(own)
        table[label] = {
            "accuracy": round(mean, 4),
            "interval": round(half, 4) if len(own) > 1 else None,
            "greedy": round(greedy, 4),
            "items": len(own),
            "by_item": by_item,
        }
    return table
