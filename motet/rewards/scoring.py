"""A step's trajectories -> scores: every reward is called once with all of them, and what it returns is checked."""

from __future__ import annotations

import asyncio
import math
import numbers
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from inspect import isawaitable, iscoroutine
from typing import Any

import numpy as np

from motet.errors import MotetError, RewardError
from motet.lookup import first_line
from motet.rewards.base import BoundReward
from motet.trajectory import Failure, Group, Scores, Trajectory, completion_of

Values = list[float | None]
CONTRACT = "return one number per completion, or None where the reward does not apply"


def score_groups(groups: Sequence[Group], rewards: Sequence[BoundReward]) -> list[Scores]:
    """Score P groups of G siblings: one `Scores` per group, in order.

    A reward sees all trajectories that did not fail, group by group: `prompts` (the chat before the first act that it
    speaks for), `completions` (of the acts that it speaks for or sees; empty where a trajectory has none of them),
    every dataset column, and `images` as a list per row. Async rewards run concurrently, sync ones one after the other.

    A sibling that performed none of the acts that a reward speaks for, and got None from it, gets the mean of its
    siblings' values: under the group's baseline the reward is then neither for nor against it. (PromptRL does so with
    the format of prompts that some siblings do not rewrite, arXiv 2602.01382.)

    A trajectory is dropped, with the reason, when it failed before, when a reward gave it NaN or infinity, and when a
    reward gave it None but gave a sibling a value. None for all survivors of a group: the reward does not apply there.
    Raises RewardError when a reward raises, breaks its contract, or returns no finite number in the whole step.
    """
    alive = [(p, g, group.trajectories[g]) for p, group in enumerate(groups) for g in group.alive]
    trajectories = [trajectory for _, _, trajectory in alive]
    returned = _call_all(rewards, trajectories) if trajectories else [[] for _ in rewards]
    table: list[dict[str, Values]] = [{r.name: [None] * len(group.trajectories) for r in rewards} for group in groups]
    dropped: list[dict[int, Failure]] = [
        {g: t.failure for g, t in enumerate(group.trajectories) if t.failure is not None} for group in groups
    ]
    for reward, values in zip(rewards, returned, strict=True):
        values = _with_absent(reward, alive, values)
        for (p, g, _), value in zip(alive, values, strict=True):
            if value is None or math.isfinite(value):
                table[p][reward.name][g] = value
            else:
                dropped[p].setdefault(g, Failure("reward", f"reward {reward.name!r} returned {value}"))
        for p, group in enumerate(groups):
            reason = Failure("reward", f"reward {reward.name!r} returned None for it but not for its siblings")
            for g in _partly_none(group, [(g, v) for (q, g, _), v in zip(alive, values, strict=True) if q == p]):
                dropped[p].setdefault(g, reason)
    return [
        Scores({name: tuple(values) for name, values in rows.items()}, lost)
        for rows, lost in zip(table, dropped, strict=True)
    ]


def _with_absent(reward: BoundReward, alive: Sequence[tuple[int, int, Trajectory]], values: Values) -> Values:
    """The values, with the mean of the siblings' for those that performed none of the reward's acts."""
    given: dict[int, list[float]] = {}
    for (p, _, _), value in zip(alive, values, strict=True):
        if value is not None and math.isfinite(value):
            given.setdefault(p, []).append(value)
    return [
        sum(given[p]) / len(given[p])
        if value is None and p in given and not any(act.name in reward.acts for act in trajectory.acts)
        else value
        for (p, _, trajectory), value in zip(alive, values, strict=True)
    ]


def _partly_none(group: Group, values: Sequence[tuple[int, float | None]]) -> list[int]:
    """Siblings with None in a group where another has a value."""
    applies = any(value is not None for _, value in values)
    return [g for g, value in values if value is None] if applies else []


def _call_all(rewards: Sequence[BoundReward], trajectories: Sequence[Trajectory]) -> list[Values]:
    columns = _columns(trajectories)
    results: list[Any] = []
    try:
        for reward in rewards:
            results.append(_call(reward, trajectories, columns))
    except MotetError:
        for result in results:
            if iscoroutine(result):
                result.close()  # else Python complains that it was never awaited
        raise
    waiting = [n for n, result in enumerate(results) if isawaitable(result)]
    if waiting:
        pending = [_guard(rewards[n], results[n], len(trajectories)) for n in waiting]
        for n, result in zip(waiting, _gather(pending), strict=True):
            results[n] = result
    return [_checked(reward, result, len(trajectories)) for reward, result in zip(rewards, results, strict=True)]


def _call(reward: BoundReward, trajectories: Sequence[Trajectory], columns: dict[str, list[Any]]) -> Any:
    try:
        return reward(**_dialogue(reward, trajectories), **columns)
    except MotetError:
        raise
    except Exception as error:
        raise _raised(reward, error, len(trajectories)) from error


def _dialogue(reward: BoundReward, trajectories: Sequence[Trajectory]) -> dict[str, list[Any]]:
    """`prompts` and `completions` as the reward sees them: fresh lists, so that it may edit them."""
    prompts, completions = [], []
    for trajectory in trajectories:
        acts = [act for act in trajectory.acts if act.name in reward.acts]
        shown = [act for act in trajectory.acts if act.name in reward.acts or act.name in reward.sees]
        prompts.append((acts or trajectory.acts)[0].context.to_chat())
        completions.append(completion_of(shown))
    return {"prompts": prompts, "completions": completions}


def _columns(trajectories: Sequence[Trajectory]) -> dict[str, list[Any]]:
    """Every dataset column as a list with one entry per trajectory; None where a row lacks it."""
    names = dict.fromkeys(name for trajectory in trajectories for name in trajectory.task.columns)
    columns = {
        name: [trajectory.task.columns.get(name) for trajectory in trajectories]
        for name in names
        if name not in ("prompts", "completions")
    }
    images = [trajectory.task.images or None for trajectory in trajectories]
    return columns | ({"images": images} if {"image", "images"} & set(names) else {})


async def _guard(reward: BoundReward, result: Awaitable[Any], count: int) -> Any:
    try:
        return await result
    except MotetError:
        raise
    except Exception as error:
        raise _raised(reward, error, count) from error


def _gather(pending: Sequence[Awaitable[Any]]) -> list[Any]:
    """Await all, also from inside a running event loop (a notebook): then on a thread with a loop of its own."""

    async def gather() -> list[Any]:
        return await asyncio.gather(*pending)

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(gather())
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, gather()).result()


def _raised(reward: BoundReward, error: Exception, count: int) -> RewardError:
    return RewardError(
        f"Reward {reward.name!r} raised {first_line(error)} (called with {count} completions).",
        fix="mend the function, or return None for rows that it cannot judge; see the traceback.",
    )


def _checked(reward: BoundReward, result: Any, count: int) -> Values:
    """The reward's list as floats and Nones. Raises RewardError when it broke its contract."""
    if not isinstance(result, list):
        raise RewardError(
            f"Reward {reward.name!r} returned a {type(result).__name__}, not a list of {count}.", fix=f"{CONTRACT}."
        )
    if len(result) != count:
        raise RewardError(
            f"Reward {reward.name!r} returned {len(result)} values for {count} completions.", fix=f"{CONTRACT}."
        )
    for number, value in enumerate(result):
        if value is not None and not isinstance(value, numbers.Real | np.bool_):
            raise RewardError(
                f"Reward {reward.name!r} returned {value!r} ({type(value).__name__}) for completion {number}, "
                "not a number.",
                fix=f"{CONTRACT}; of a tensor or an array return .tolist().",
            )
    values = [None if value is None else float(value) for value in result]
    given = [value for value in values if value is not None]
    if given and not any(math.isfinite(value) for value in given):
        raise RewardError(
            f"Reward {reward.name!r} returned no finite number in this step: {len(given)} of {count} values are NaN or "
            f"infinite, the first is {given[0]}.",
            fix="mend the reward: NaN for single completions drops them, NaN for all is an error.",
        )
    return values
