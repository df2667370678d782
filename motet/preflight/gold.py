"""Known good and known bad samples: a rolled out trajectory with its act replaced by gold, and by a wrong answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from motet.config import Recipe
from motet.core.task import Task
from motet.core.trajectory import Act, Group, ImageAct, TextAct, Trajectory
from motet.evaluation.data_preview import first_gold, gold_columns
from motet.rewards import BoundReward
from motet.rewards.text.gold_check import gold_texts
from motet.training.setup import Track

WRONG = "none of these"
"""A wrong answer where no other row has another one."""


@dataclass(frozen=True, eq=False)
class GoldSample:
    """A group of two: with the gold of an act, from the row's `column`, and with something wrong in its place.

    Without a column there is no gold, and the first of the two is as it was sampled.
    """

    act: str
    column: str | None
    group: Group


@dataclass(frozen=True)
class GoldPair:
    """What a reward gave to the two of a `GoldSample`."""

    reward: BoundReward
    act: str
    column: str | None
    row: int
    good: float
    bad: float


def gold_samples(recipe: Recipe, track: Track, groups: Sequence[Group]) -> list[GoldSample]:
    """Gold against wrong for every act of the first valid trajectory of each group."""
    targets = recipe.resolved_tracks()[track.name].data.targets
    samples: list[GoldSample] = []
    for group in groups:
        done = next((one for one in group.trajectories if one.failure is None), None)
        if done is None:
            continue
        columns = gold_columns(group.task, track.scenario, targets)
        others = [other.task for other in groups if other is not group]
        for act in done.acts:
            rewards, column = [reward for reward in track.rewards if act.name in reward.acts], columns.get(act.name)
            two = None if column is None else _good_and_bad(act, group.task, others, column, rewards)
            if two is None:
                two, column = (act, _wrong(act)), None
            pair = Group(group.task, tuple(_with_act(done, one) for one in two))
            samples.append(GoldSample(act.name, column, pair))
    return samples


def _with_act(trajectory: Trajectory, act: Act) -> Trajectory:
    return replace(trajectory, acts=tuple(act if own.name == act.name else own for own in trajectory.acts))


def _wrong(act: Act) -> Act:
    """The act with a text that does not answer, or with a black image."""
    if isinstance(act, TextAct):
        return replace(act, text=WRONG, finished=True)
    return replace(act, image=Image.new("RGB", act.image.size)) if isinstance(act, ImageAct) else act


def _good_and_bad(
    act: Act, task: Task, others: Sequence[Task], column: str, rewards: Sequence[BoundReward]
) -> tuple[Act, Act] | None:
    """The act with the row's gold, and with that of another row, or with something wrong."""
    if isinstance(act, TextAct):
        gold = first_gold(task[column])
        right = gold_texts(task[column])
        golds = [first_gold(other[column]) for other in others if other.columns.get(column) is not None]
        wrong = next((text for text in golds if not set(gold_texts(text)) & set(right)), WRONG)
        if "<answer>" in gold or any(reward.requires_answer_tags for reward in rewards):
            gold, wrong = _in_tags(gold), _in_tags(wrong)
        return replace(act, text=gold, finished=True), replace(act, text=wrong, finished=True)
    image = task[column]
    if not isinstance(act, ImageAct) or not isinstance(image, Image.Image):
        return None
    return replace(act, image=image), replace(act, image=Image.new("RGB", image.size))


def _in_tags(text: str) -> str:
    return text if "<answer>" in text else f"<answer>{text}</answer>"
