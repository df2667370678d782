"""A reward that says nothing from the first step on: said once, early, with an example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from motet.core.trajectory import Group, Scores, TextTokens
from motet.report.samples import WeightedReward

STEPS = 5
"""After how many steps it is said."""
GOLD = ("answer", "solution")
LONGEST = 160
"""Characters of a completion or a gold answer that are shown."""


@runtime_checkable
class Reward(WeightedReward, Protocol):
    """What the example needs to know of a reward, beyond what samples show."""

    @property
    def needs(self) -> tuple[str, ...]: ...

    @property
    def wants_tags(self) -> bool: ...


@dataclass
class _Count:
    steps: int = 0
    trajectories: int = 0
    zeros: int = 0
    given: int = 0
    done: bool = False


class EmptyRewards:
    """Watches the steps of a run for rewards that are 0 for every trajectory, or None for all, from the first on.

    A reward that is only watched (weight 0) is left out. After `steps` steps of a track it is said, once; 0: never, as
    of a run that goes on, whose first steps were seen before.
    """

    def __init__(self, steps: int = STEPS) -> None:
        self.steps = steps
        self._counts: dict[tuple[str, str], _Count] = {}

    def look(
        self, track: str, groups: Sequence[Group], scores: Sequence[Scores], rewards: Sequence[Reward]
    ) -> Iterator[str]:
        """What is to be said after a step."""
        for reward in rewards:
            count = self._counts.setdefault((track, reward.name), _Count(done=reward.weight == 0 or not self.steps))
            values = [
                score.values[reward.name][g]
                for group, score in zip(groups, scores, strict=True)
                for g in group.valid_indices
            ]
            if count.done or not values:
                continue
            count.steps += 1
            count.trajectories += len(values)
            count.zeros += values.count(0.0)
            count.given += len(values) - values.count(None)
            count.done = count.zeros < count.given or count.steps == self.steps
            if count.zeros == count.given and count.done:
                yield _message(track, reward, count, groups)


def _message(track: str, reward: Reward, count: _Count, groups: Sequence[Group]) -> str:
    named = f"Reward {reward.name!r}" + (f" of track {track!r}" if track else "")
    outcome = (
        "0 for all" if count.given == count.trajectories else "None for all" if not count.given else "0 or None for all"
    )
    example, text = _example(reward, groups)
    said = (
        f"{named} was {outcome} {count.trajectories} trajectories of {count.steps} steps, so nothing is "
        f"learned from it yet. {example}"
    )
    if count.given and reward.wants_tags and text is not None and "<answer>" not in text:
        said += (
            " It reads only what stands in <answer> tags: ask for them in the question, or set "
            "rewards.options.tagged=false."
        )
    return said


def _example(reward: Reward, groups: Sequence[Group]) -> tuple[str, str | None]:
    """One completion with the row's gold answer, and the completion's text if it has one."""
    group = next(group for group in groups if group.valid_indices)
    acts = [act for act in group.trajectories[group.valid_indices[0]].acts if act.name in reward.acts]
    texts = [act.text for act in acts if isinstance(act, TextTokens)]
    text = texts[-1] if texts else None
    completion = "no act that it speaks for" if not acts else "a picture" if text is None else _short(text)
    gold = _gold(reward, group.task.columns)
    return f"For example (row {group.task.index}): the completion is {completion}{gold}.", text


def _gold(reward: Reward, columns: Mapping[str, Any]) -> str:
    """The columns that the reward compares with, as far as they are words or numbers."""
    names = [name for name in dict.fromkeys((*reward.needs, *GOLD)) if name in columns]
    shown = [f"{name}={_short(columns[name])}" for name in names if _is_plain(columns[name])]
    return f", the row has {', '.join(shown)}" if shown else ""


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, str | int | float)


def _short(value: Any) -> str:
    """As Python writes it, so that nothing in it can act on a terminal."""
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
