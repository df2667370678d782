"""Score a step's trajectories: every reward is called once with all of them, and its return value is checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from motet.core.trajectory import Failure, Group, Scores, Trajectory
from motet.rewards.arguments import StepLog
from motet.rewards.base import BoundReward
from motet.rewards.calling import call_rewards
from motet.rewards.failures import Unscored, Value

Values = list[float | None]


def score_groups(groups: Sequence[Group], rewards: Sequence[BoundReward], log: StepLog | None = None) -> list[Scores]:
    """Score P groups of G trajectories: one `Scores` per group, in order.

    A reward reads all valid trajectories, group by group: `prompts` (the chat before the first act that it is assigned
    to), `completions` (of the acts that it is assigned to or reads; empty where a trajectory has none of them), the
    other arguments of `motet.rewards.arguments`, every dataset column, and `images` as a list per row. Functions of
    users get copies of all that. Async rewards run concurrently, sync ones one after the other. `log` has the training
    state, and takes what the rewards log.

    A generation without any act that a reward is assigned to, for which the reward returned None, gets the mean of the
    group's values: under the group's baseline the reward then contributes zero advantage. (PromptRL does so with the
    format of prompts that some generations do not rewrite, arXiv 2602.01382.)

    A trajectory is dropped, with the reason, when it failed before, when a reward returned NaN or infinity for it, and
    when a reward returned None for it but a value for another of its group. None for all valid trajectories of a group:
    the reward does not apply there. What happens when a reward raises, takes too long, violates its contract or returns
    `Unscored` is said by its `on_failure`. Raises RewardError then, and when it has no finite number in the whole step.
    """
    valid = [(p, g, group.trajectories[g]) for p, group in enumerate(groups) for g in group.valid_indices]
    trajectories = [trajectory for _, _, trajectory in valid]
    log = StepLog() if log is None else log
    returned = call_rewards(rewards, trajectories, log) if trajectories else [[] for _ in rewards]
    table: list[dict[str, Values]] = [{r.name: [None] * len(group.trajectories) for r in rewards} for group in groups]
    dropped: list[dict[int, Failure]] = [
        {g: t.failure for g, t in enumerate(group.trajectories) if t.failure is not None} for group in groups
    ]
    for reward, own in zip(rewards, returned, strict=True):
        scored = _without_unscored(valid, own, dropped)
        values = _impute_group_mean(reward, scored)
        for (p, g, _), value in values:
            if value is None or math.isfinite(value):
                table[p][reward.name][g] = value
            else:
                dropped[p].setdefault(g, Failure("reward", f"reward {reward.name!r} returned {value}"))
        for p in range(len(groups)):
            reason = Failure("reward", f"reward {reward.name!r} returned None for it but not for others of its group")
            for g in _dropped_by_none([(g, value) for (q, g, _), value in values if q == p]):
                dropped[p].setdefault(g, reason)
    logged: list[dict[int, dict[str, Any]]] = [{} for _ in groups]
    for reward, named in log.extra.items():
        for place, (p, g, _) in enumerate(valid):
            logged[p].setdefault(g, {})[reward] = {column: values[place] for column, values in named.items()}
    return [
        Scores({name: tuple(values) for name, values in rows.items()}, failures, extra)
        for rows, failures, extra in zip(table, dropped, logged, strict=True)
    ]


_Place = tuple[int, int, Trajectory]
"""Group, generation and trajectory."""


def _without_unscored(
    valid: Sequence[_Place], values: Sequence[Value], dropped: Sequence[dict[int, Failure]]
) -> list[tuple[_Place, float | None]]:
    """The values of the completions that could be scored; the others are dropped."""
    scored: list[tuple[_Place, float | None]] = []
    for place, value in zip(valid, values, strict=True):
        if isinstance(value, Unscored):
            dropped[place[0]].setdefault(place[1], Failure("reward", value.reason))
        else:
            scored.append((place, value))
    return scored


def _impute_group_mean(
    reward: BoundReward, scored: Sequence[tuple[_Place, float | None]]
) -> list[tuple[_Place, float | None]]:
    """The values, with the group's mean for generations without any of the reward's acts."""
    given: dict[int, list[float]] = {}
    for (p, _, _), value in scored:
        if value is not None and math.isfinite(value):
            given.setdefault(p, []).append(value)
    return [
        (place, sum(given[place[0]]) / len(given[place[0]]))
        if value is None and place[0] in given and not any(act.name in reward.acts for act in place[2].acts)
        else (place, value)
        for place, value in scored
    ]


def _dropped_by_none(values: Sequence[tuple[int, float | None]]) -> list[int]:
    """Generations with None in a group where another has a value."""
    applies = any(value is not None for _, value in values)
    return [g for g, value in values if value is None] if applies else []
