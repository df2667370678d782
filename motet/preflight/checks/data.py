"""Checks of the rows: columns, images, variety, and whether evaluation sees rows of training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from PIL import Image

from motet.core.task import COLUMNS_WITH_IMAGES, Task
from motet.data import Rows
from motet.data.digest import digest_images
from motet.data.sources import CONVERSATIONS
from motet.evaluation.data_preview import ANSWER_COLUMNS
from motet.preflight.findings import Finding, NotApplicable, check, stop, warn
from motet.preflight.probe import Probe, ProbedTrack
from motet.training.setup import eval_rows, needs_rewards

MAX_COMPARED = 5000
"""Most rows of training, and of evaluation, that are compared."""


@check("data_readable")
def data_readable(probe: Probe) -> Iterator[Finding]:
    """Sampled rows and their images can be read to the end"""
    for one in probe.tracks:
        if one.unreadable:
            problem = one.unreadable[0].problem.rstrip(".")
            yield stop(
                f"{problem}; {len(one.unreadable)} of {len(one.unreadable) + len(one.rows)} sampled rows are like it.",
                cause="a file is truncated or not an image",
                fix=one.unreadable[0].fix,
            )


@check("data_columns")
def data_columns(probe: Probe) -> Iterator[Finding]:
    """Every sampled row has the columns that the scenario, the rewards and the targets use"""
    for one in probe.tracks:
        acts = {column: f"data.targets.{act}" for act, column in one.track.targets.items()}
        acts |= {column: f"data.rejected.{act}" for act, column in one.track.rejected.items()}
        users = dict.fromkeys(one.track.scenario.columns, f"the scenario {one.track.scenario.name!r}")
        users |= {column: f"reward {r.name!r}" for r in one.track.rewards for column in r.required_columns}
        users |= acts
        for column, user in users.items():
            either = ("image", "images") if column in ("image", "images") else (column,)
            missing = [i for i, row in one.rows if all(row.get(name) is None for name in either)]
            if not missing:
                continue
            text = (
                f"{len(missing)} of {len(one.rows)} sampled rows{one.label} have nothing in the column {column!r}, "
                f"which {user} {'names' if column in acts else 'uses'}; the first is row {missing[0]}."
            )
            settings = {
                "cause": "the column is empty, or another one was meant",
                "fix": f"fill it in, or map the column that has it: data.columns.{column}=NAME.",
            }
            ends_run = column in acts or len(missing) == len(one.rows)  # a step that draws such a row raises
            yield (stop if ends_run else warn)(text, **settings)


@check("data_variety")
def data_variety(probe: Probe) -> Iterator[Finding]:
    """Rows differ from each other, and there are enough for one step"""
    for one in probe.tracks:
        rows, prompts = one.track.cursor.rows, one.track.prompts
        if rows.size is not None and rows.size < prompts:
            yield warn(
                f"The data{one.label} has {rows.size} rows, and a step takes {prompts}.",
                cause="every step repeats rows: the policy memorises them",
                fix="add rows, or lower run.prompts_per_step.",
            )
        shown = [_prompt(Task(i, row), one.track.scenario.columns) for i, row in one.rows]
        if len(shown) > 1 and len(set(shown)) <= len(shown) // 2:
            yield warn(
                f"Only {len(set(shown))} of {len(shown)} sampled rows{one.label} have different prompts.",
                cause="rows are duplicates, or the scenario reads another column than the one that varies",
                fix="remove the duplicates, or map the right column with data.columns.",
            )


@check("data_swapped")
def data_swapped(probe: Probe) -> Iterator[Finding]:
    """Questions and gold answers are not in each other's columns"""
    checked = False
    for one in probe.tracks:
        asked = next((column for column in one.track.scenario.columns if column in CONVERSATIONS), None)
        golds = (*one.track.targets.values(), *ANSWER_COLUMNS)
        gold = next((column for column in golds if any(_text(row.get(column)) for _, row in one.rows)), None)
        if asked is None or gold is None:
            continue
        checked = True
        pairs = [(_text(row.get(asked)), _text(row.get(gold))) for _, row in one.rows]
        pairs = [(question, answer) for question, answer in pairs if question and answer]
        settings = {
            "cause": f"the columns {asked!r} and {gold!r} are swapped, or both come from one column",
            "fix": f"swap them: data.columns.{asked}=NAME data.columns.{gold}=NAME.",
        }
        if pairs and all(question == answer for question, answer in pairs):
            yield stop(f"The columns {asked!r} and {gold!r}{one.label} hold the same text in every row.", **settings)
        elif pairs and _looks_swapped(pairs):
            yield warn(
                f"The column {gold!r}{one.label} holds questions: {pairs[0][1]!r:.80}; {asked!r} holds "
                f"{pairs[0][0]!r:.80}.",
                **settings,
            )
    if not checked:
        raise NotApplicable("no row has a question and a gold answer")


def _looks_swapped(pairs: list[tuple[str, str]]) -> bool:
    """Whether most golds, and few prompts, end with a question mark."""
    marks = [[text.rstrip().endswith("?") for text in texts] for texts in zip(*pairs, strict=True)]
    asked, gold = (sum(own) / len(own) for own in marks)
    return gold > 0.5 > asked


@check("eval_overlap")
def eval_overlap(probe: Probe) -> Iterator[Finding]:
    """The rows of evaluation are not rows of training"""
    if not needs_rewards(probe.session.recipe):
        raise NotApplicable("the evaluation has no rows of the data")
    for one in probe.tracks:
        training, evaluation = one.track.cursor.rows, eval_rows(probe.session.recipe, one.track)
        trained, evaluated = _texts(one, training), _texts(one, evaluation)
        same = set(trained) & set(evaluated)
        if set(one.track.scenario.columns) & {
            *COLUMNS_WITH_IMAGES,
            "image",
            "images",
        }:  # the same question about another image differs
            pairs = [_with_images(training, trained, same), _with_images(evaluation, evaluated, same)]
        else:
            pairs = [trained, [key for key in evaluated if key in same]]
        known = set(pairs[0])
        shared = sum(key in known for key in pairs[1])
        if shared:
            yield warn(
                f"{shared} of {len(evaluated)} rows of evaluation{one.label} are rows of training.",
                cause="the files or splits overlap, so the evaluation measures what was memorised",
                fix="remove the rows from one of them, or set eval.suite.data or eval.suite.split to others.",
            )


def _texts(one: ProbedTrack, rows: Rows) -> list[str]:
    """Rows by their texts and numbers; nothing for generated rows."""
    if rows.source.generated or rows.size is None:
        return []
    columns = tuple(dict.fromkeys((*one.track.scenario.columns, *ANSWER_COLUMNS)))
    columns = tuple(column for column in columns if column not in ("image", "images"))  # a path may be of any folder
    return [_key(row, columns) for _, row in islice(rows.texts(), MAX_COMPARED)]


def _with_images(rows: Rows, texts: list[str], which: set[str]) -> list[str]:
    """The rows whose texts are in `which`, by their texts and images."""
    return [f"{digest_images(rows, i)} {text}" for i, text in enumerate(texts) if text in which]


def _prompt(task: Task, columns: tuple[str, ...]) -> str:
    """What the policy is shown of a row: the scenario's columns, and the images of its conversations."""
    images = [image for column in columns if column in CONVERSATIONS for image in task.conversation(column).images]
    return _key({**task.columns, "": images}, ("", *columns))


def _key(row: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    shown = {name: comparable(row[name]) for name in columns if row.get(name) is not None}
    return json.dumps(shown, sort_keys=True, default=str)


def comparable(value: Any) -> Any:
    """A value by which two of a column can be compared: of an image, its size and a few pixels."""
    if isinstance(value, Image.Image):
        return [value.size, value.resize((8, 8)).tobytes().hex()]
    return [comparable(one) for one in value] if isinstance(value, list | tuple) else value


def _text(value: Any) -> str:
    if isinstance(value, list | tuple) and value:
        value = value[0]
    return str(value).strip() if isinstance(value, str | int | float) else ""
