"""Preview of a recipe's data before training: rows, the policy's prompts, and the rewards of gold answers.

The gold of an act is the column that `data.targets` names for it. For an answer without target (the act `answer`, or
the only text of a scenario that reads the question) it is `solution` or `answer`. Without gold the policy is sampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from motet.config import Recipe, TrackConfig
from motet.core.errors import DataError
from motet.core.protocols import Policy, ReadablePolicy
from motet.core.task import Task
from motet.core.trajectory import Group, ImageAct, TextAct, Trajectory
from motet.data import Rows, open_rows, warn_unused_images
from motet.data.summary import summarize_rows
from motet.evaluation.reconstruction import Reconstruction, reconstruct
from motet.policies import load_policy
from motet.rewards import BoundReward, StepLog, bind_policy, check_golds, resolve_all, score_groups
from motet.rewards.text.gold_check import gold_texts
from motet.scenarios import Scenario, resolve_scenario
from motet.training.rollout import encode_demonstrations
from motet.training.setup import sampling_params

ANSWER_COLUMNS = ("solution", "answer")
"""Columns with the answer of a row, if `data.targets` names none."""
_GOLD_COLUMN = "motet: gold {}"
"""Temporary column with the gold of an act."""


@dataclass(frozen=True)
class ShownAct:
    """An act with its `prompt`. `text` is None for an image; `column` is the source of the gold, None if sampled.

    `sampled` is the image that the policy generated, None for others.
    """

    name: str
    prompt: str
    text: str | None
    column: str | None
    sampled: Image.Image | None = None


@dataclass(frozen=True)
class ShownRow:
    """A row with its location in the data, the acts of its scenario, and their rewards.

    `dropped`: why a run would drop it (the rollout failed, or a reward was not finite); None if it would not.
    """

    location: str
    columns: Mapping[str, Any]
    acts: list[ShownAct]
    rewards: dict[str, float | None]
    dropped: str | None


@dataclass(frozen=True)
class ShownTrack:
    """The first rows of a track, all of their images, and the reconstruction by the image tokenizer, if there is one.

    `image_locations`: the location of each image's row. `generates_images`: whether the scenario has acts that are
    images; only then the tokenizer is used. `summary`: lines about all rows of the track.
    """

    name: str
    rows: list[ShownRow]
    images: list[Image.Image]
    image_locations: list[str]
    reconstruction: Reconstruction | None
    generates_images: bool
    summary: list[str]


@dataclass(frozen=True)
class _OpenTrack:
    name: str
    config: TrackConfig
    scenario: Scenario
    rows: Rows
    rewards: list[BoundReward]
    summary: list[str]


def preview(recipe: Recipe, count: int, split: str | None = None) -> list[ShownTrack]:
    """The first `count` rows of every track, of `split` if given. Raises the errors that a run of the recipe would."""
    opened = [_open(recipe, name, config, split) for name, config in recipe.resolved_tracks().items()]
    policy = load_policy(recipe.policy.path, recipe.policy)
    if any(reward.uses_reference for track in opened for reward in track.rewards):
        policy.freeze_reference()
    return [
        _show(recipe, policy, replace(track, rewards=bind_policy(track.rewards, policy)), number, count)
        for number, track in enumerate(opened)
    ]


def _open(recipe: Recipe, name: str, config: TrackConfig, split: str | None) -> _OpenTrack:
    scenario = resolve_scenario(config.scenario.name).with_options(config.scenario.options)
    data = config.data if split is None else config.data.model_copy(update={"split": split})
    image_columns = [column for act, column in data.targets.items() if act not in scenario.acts_making("text")]
    needed = (*scenario.columns, *data.targets.values())
    rows = open_rows(data, needed, seed=recipe.run.seed, image_columns=image_columns, check=False)
    golds = dict.fromkeys([*data.targets.values(), *(column for column in ANSWER_COLUMNS if column in rows.columns)])
    summary = summarize_rows(rows, golds)
    rewards = resolve_all(config.rewards, scenario.acts, rows.columns)
    check_golds(rewards, rows.texts())
    named = {column for reward in rewards for column in reward.required_columns}
    warn_unused_images(rows, {*scenario.columns, *data.targets.values(), *named})
    return _OpenTrack(name, config, scenario, rows, rewards, summary)


def _show(recipe: Recipe, policy: Policy, track: _OpenTrack, number: int, count: int) -> ShownTrack:
    tasks = [track.rows.task(n) for n in range(count if track.rows.size is None else min(count, track.rows.size))]
    golds = [gold_columns(task, track.scenario, track.config.data.targets) for task in tasks]
    rollouts = [_roll_out(recipe, policy, track, number, task, gold) for task, gold in zip(tasks, golds, strict=True)]
    groups = [Group(task, (own,)) for task, own in zip(tasks, rollouts, strict=True)]
    scores = score_groups(groups, track.rewards, StepLog(recipe.run.steps, recipe.run.steps))
    rows = [
        ShownRow(
            track.rows.source.place(n),
            task.columns,
            [_shown_act(policy, act, gold.get(act.name)) for act in trajectory.acts],
            {reward.name: score.values[reward.name][0] for reward in track.rewards},
            score.dropped[0].message if 0 in score.dropped else None,
        )
        for n, (task, gold, trajectory, score) in enumerate(zip(tasks, golds, rollouts, scores, strict=True))
    ]
    located = [(image, row.location) for task, row in zip(tasks, rows, strict=True) for image in _images(task)]
    images, locations = [image for image, _ in located], [location for _, location in located]
    generates_images = bool(track.scenario.acts_making("image"))
    reconstruction = reconstruct(policy, images) if generates_images else None
    return ShownTrack(track.name, rows, images, locations, reconstruction, generates_images, track.summary)


def _roll_out(
    recipe: Recipe, policy: Policy, track: _OpenTrack, number: int, task: Task, golds: Mapping[str, str]
) -> Trajectory:
    """Run the scenario on one row; `golds` maps acts to the columns of their gold."""
    answers = {act: first_gold(task[column]) for act, column in golds.items() if act not in track.config.data.targets}
    added = {_GOLD_COLUMN.format(act): text for act, text in answers.items()}
    targets = {act: _GOLD_COLUMN.format(act) if act in answers else column for act, column in golds.items()}
    extended = replace(task, columns={**task.columns, **added})
    seed, samplings = recipe.run.seed, sampling_params(recipe)
    (rollout,) = encode_demonstrations(
        policy, track.scenario, [extended], targets, samplings=samplings, seed=seed, track=number
    )
    return Trajectory(task, rollout.acts, rollout.failure)


def gold_columns(task: Task, scenario: Scenario, targets: Mapping[str, str]) -> dict[str, str]:
    """Act -> the column of its gold, for the acts that have a gold in this row. `targets` are `data.targets`."""
    golds = {act: column for act, column in targets.items() if task[column] is not None}
    answer_column = next((column for column in ANSWER_COLUMNS if _is_gold(task.columns.get(column))), None)
    texts = scenario.acts_making("text")
    is_only_text = len(texts) == 1 and "question" in scenario.columns
    for act in ["answer"] if "answer" in texts else texts if is_only_text else []:
        if answer_column is not None and act not in targets:
            golds[act] = answer_column
    return golds


def _is_gold(value: Any) -> bool:
    try:
        return bool(gold_texts(value))
    except DataError:  # null, a boolean, an empty list: `check_golds` reports it if a reward reads the column
        return False


def first_gold(value: Any) -> str:
    """The first of several correct answers, as text."""
    return str(value[0] if isinstance(value, list | tuple) else value)


def _images(task: Task) -> list[Image.Image]:
    others = [value for name, value in task.columns.items() if isinstance(value, Image.Image) and name != "image"]
    return [*task.images, *others]


def _shown_act(policy: Policy, act: Any, column: str | None) -> ShownAct:
    prompt = policy.readable_prompt(act) if isinstance(policy, ReadablePolicy) else act.context.text
    sampled = act.image if isinstance(act, ImageAct) and column is None else None
    return ShownAct(act.name, prompt, act.text if isinstance(act, TextAct) else None, column, sampled)
