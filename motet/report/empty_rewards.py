"""Warn once, early and with an example, about a reward that has been 0 or None since the first step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol, runtime_checkable

from motet.core.protocols import WeightedReward
from motet.core.trajectory import Group, Scores, TextAct

STEPS = 5
"""Number of steps after which the warning is given."""
GOLD = ("answer", "solution")
MAX_CHARACTERS = 160
"""Most characters of a completion or gold answer that a message shows."""


@runtime_checkable
class Reward(WeightedReward, Protocol):
    """A weighted reward, with what the warning needs to know about it."""

    @property
    def required_columns(self) -> tuple[str, ...]: ...

    @property
    def requires_answer_tags(self) -> bool: ...


@dataclass
class _Count:
    steps: int = 0
    trajectories: int = 0
    zeros: int = 0
    not_none: int = 0
    done: bool = False


class EmptyRewards:
    """Finds rewards that are 0 or None for every trajectory since the first step of a track.

    Rewards of weight 0 are only logged and are ignored. The warning comes once, after `steps` steps of a track, those
    before a resume included.
    """

    def __init__(self, steps: int = STEPS) -> None:
        self.steps = steps
        self._counts: dict[tuple[str, str], _Count] = {}

    def state_dict(self) -> dict[str, Any]:
        """The counts by track and reward, part of every checkpoint: see `motet.report.callbacks.Callback`."""
        counts = [{"track": track, "reward": name, **asdict(count)} for (track, name), count in self._counts.items()]
        return {"counts": counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on counting where the checkpoint was saved."""
        for entry in state["counts"]:
            count = {field.name: entry[field.name] for field in fields(_Count)}
            self._counts[entry["track"], entry["reward"]] = _Count(**count)

    def check(
        self, track: str, groups: Sequence[Group], scores: Sequence[Scores], rewards: Sequence[Reward]
    ) -> Iterator[str]:
        """The warnings due after a step; call it after every step. `groups` and `scores` correspond one to one."""
        for reward in rewards:
            count = self._counts.setdefault((track, reward.name), _Count(done=reward.weight == 0))
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
            count.not_none += len(values) - values.count(None)
            count.done = count.zeros < count.not_none or count.steps == self.steps
            if count.zeros == count.not_none and count.done:
                yield _message(track, reward, count, groups)


def _message(track: str, reward: Reward, count: _Count, groups: Sequence[Group]) -> str:
    subject = f"Reward {reward.name!r}" + (f" of track {track!r}" if track else "")
    outcome = (
        "0 for all"
        if count.not_none == count.trajectories
        else "None for all"
        if not count.not_none
        else "0 or None for all"
    )
    example, text = _example(reward, groups)
    message = (
        f"{subject} was {outcome} {count.trajectories} trajectories of {count.steps} steps, so it does not affect "
        f"training yet. {example}"
    )
    if count.not_none and reward.requires_answer_tags and text is not None and "<answer>" not in text:
        message += (
            " It reads only the text inside <answer> tags: ask for them in the question, or set "
            "rewards.options.answer_tags=false."
        )
    return message


def _example(reward: Reward, groups: Sequence[Group]) -> tuple[str, str | None]:
    """One completion with the row's gold answer, and the completion's text if it has one."""
    group = next(group for group in groups if group.valid_indices)
    acts = [act for act in group.trajectories[group.valid_indices[0]].acts if act.name in reward.acts]
    texts = [act.text for act in acts if isinstance(act, TextAct)]
    text = texts[-1] if texts else None
    completion = "missing (no act of this reward)" if not acts else "an image" if text is None else _short(text)
    gold = _gold(reward, group.task.columns)
    return f"For example ({group.task.location}): the completion is {completion}{gold}.", text


def _gold(reward: Reward, columns: Mapping[str, Any]) -> str:
    """The columns that the reward compares with, if they are text or numbers."""
    names = [name for name in dict.fromkeys((*reward.required_columns, *GOLD)) if name in columns]
    shown = [f"{name}={_short(columns[name])}" for name in names if _is_plain(columns[name])]
    return f", the row has {', '.join(shown)}" if shown else ""


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, str | int | float)


def _short(value: Any) -> str:
    """The `repr`, cut short: it holds no control characters that a terminal would interpret."""

    text = repr(value)
    return text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}..."
