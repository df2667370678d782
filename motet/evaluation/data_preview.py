"""A look at data before anything is trained: rows, the prompts that the policy reads, and what rewards say of the gold.

The gold of an act is the column that `data.targets` names for it; of an answer without one (the act `answer`, or the
only text of a scenario that reads the question), `solution` or `answer`. Where a row has no gold, the policy acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from motet.config import Recipe, TrackConfig
from motet.core.errors import DataError
from motet.core.task import Task
from motet.core.trajectory import Group, TextTokens, Trajectory
from motet.data import Rows, open_rows
from motet.evaluation.reconstruction import Reconstruction, reconstruct
from motet.policies import load_policy
from motet.rewards import BoundReward, StepLog, bind_policy, check_golds, resolve_all, score_groups
from motet.rewards.text.gold_check import gold_texts
from motet.scenarios import Scenario, resolve_scenario
from motet.training.rollout import encode_demonstrations
from motet.training.setup import sampling_params

GOLD = ("solution", "answer")
"""Columns that hold the answer of a row where `data.targets` names none."""
_GIVEN = "motet: gold {}"
"""The column that hands an act its gold."""


@dataclass(frozen=True)
class ShownAct:
    """`prompt` is what the model read. `text`: None for a drawing. `column`: where the gold is from; None: sampled."""

    name: str
    prompt: str
    text: str | None
    column: str | None


@dataclass(frozen=True)
class ShownRow:
    """A row with the place that it stands at, what its scenario does with it, and what each reward says of that.

    `dropped`: why a run would drop it (it failed, or a reward gave no finite number); None: it would not.
    """

    place: str
    columns: Mapping[str, Any]
    acts: list[ShownAct]
    rewards: dict[str, float | None]
    dropped: str | None


@dataclass(frozen=True)
class ShownTrack:
    """The first rows of a track. `images`: all of theirs; `reconstruction`: by the image tokenizer, if there is one.

    `draws`: whether the scenario asks for drawings.
    """

    name: str
    rows: list[ShownRow]
    images: list[Image.Image]
    reconstruction: Reconstruction | None
    draws: bool


@dataclass(frozen=True)
class _Opened:
    name: str
    config: TrackConfig
    scenario: Scenario
    rows: Rows
    rewards: list[BoundReward]


def preview(recipe: Recipe, count: int, split: str | None = None) -> list[ShownTrack]:
    """The first `count` rows of every track, of `split` if it is given. Raises as a run of the recipe would."""
    opened = [_open(recipe, name, config, split) for name, config in recipe.resolved_tracks().items()]
    policy = load_policy(recipe.policy.path, recipe.policy)
    if any(reward.uses_reference for one in opened for reward in one.rewards):
        policy.freeze_reference()
    return [
        _show(recipe, policy, replace(one, rewards=bind_policy(one.rewards, policy)), number, count)
        for number, one in enumerate(opened)
    ]


def _open(recipe: Recipe, name: str, config: TrackConfig, split: str | None) -> _Opened:
    scenario = resolve_scenario(config.scenario.name).with_options(config.scenario.options)
    data = config.data if split is None else config.data.model_copy(update={"split": split})
    drawn = [column for act, column in data.targets.items() if scenario.acts.get(act) != "text"]
    needed = (*scenario.columns, *data.targets.values())
    rows = open_rows(data, needed, seed=recipe.run.seed, image_columns=drawn)
    rewards = resolve_all(config.rewards, scenario.acts, rows.columns)
    check_golds(rewards, rows.texts())
    return _Opened(name, config, scenario, rows, rewards)


def _show(recipe: Recipe, policy: Any, one: _Opened, number: int, count: int) -> ShownTrack:
    tasks = [one.rows.task(n) for n in range(count if one.rows.size is None else min(count, one.rows.size))]
    golds = [_golds_of(task, one) for task in tasks]
    played = [_play(recipe, policy, one, number, task, gold) for task, gold in zip(tasks, golds, strict=True)]
    groups = [Group(task, (own,)) for task, own in zip(tasks, played, strict=True)]
    scores = score_groups(groups, one.rewards, StepLog(recipe.run.steps, recipe.run.steps))
    rows = [
        ShownRow(
            one.rows.source.place(n),
            task.columns,
            [_shown_act(policy, act, gold.get(act.name)) for act in trajectory.acts],
            {reward.name: score.values[reward.name][0] for reward in one.rewards},
            score.dropped[0].message if 0 in score.dropped else None,
        )
        for n, (task, gold, trajectory, score) in enumerate(zip(tasks, golds, played, scores, strict=True))
    ]
    images = [image for task in tasks for image in _images(task)]
    draws = any(kind != "text" for kind in one.scenario.acts.values())
    return ShownTrack(one.name, rows, images, reconstruct(policy, images), draws)


def _play(recipe: Recipe, policy: Any, one: _Opened, number: int, task: Task, golds: Mapping[str, str]) -> Trajectory:
    """The scenario on one row: `golds` are the columns of the acts that the row gives."""
    usual = {act: _first(task[column]) for act, column in golds.items() if act not in one.config.data.targets}
    handed = {_GIVEN.format(act): text for act, text in usual.items()}
    targets = {act: _GIVEN.format(act) if act in usual else column for act, column in golds.items()}
    asked = replace(task, columns={**task.columns, **handed})
    seed, samplings = recipe.run.seed, sampling_params(recipe)
    (played,) = encode_demonstrations(
        policy, one.scenario, [asked], targets, samplings=samplings, seed=seed, track=number
    )
    return Trajectory(task, played.acts, played.failure)


def _golds_of(task: Task, one: _Opened) -> dict[str, str]:
    """Act -> the column of its gold, for the acts whose gold this row has."""
    found = {act: column for act, column in one.config.data.targets.items() if task[column] is not None}
    usual = next((column for column in GOLD if _is_gold(task.columns.get(column))), None)
    texts = [act for act, kind in one.scenario.acts.items() if kind == "text"]
    alone = len(texts) == 1 and "question" in one.scenario.columns
    for act in ["answer"] if "answer" in texts else texts if alone else []:
        if usual is not None and act not in one.config.data.targets:
            found[act] = usual
    return found


def _is_gold(value: Any) -> bool:
    try:
        return bool(gold_texts(value))
    except DataError:  # null, a boolean, an empty list: a reward that reads the column was asked by `check_golds`
        return False


def _first(value: Any) -> str:
    """Of several right answers the first, as it is written."""
    return str(value[0] if isinstance(value, list | tuple) else value)


def _images(task: Task) -> list[Image.Image]:
    own = [value for name, value in task.columns.items() if isinstance(value, Image.Image) and name != "image"]
    return [*task.images, *own]


def _shown_act(policy: Any, act: Any, column: str | None) -> ShownAct:
    seen = policy.as_seen(act) if hasattr(policy, "as_seen") else act.context.text
    return ShownAct(act.name, seen, act.text if isinstance(act, TextTokens) else None, column)
