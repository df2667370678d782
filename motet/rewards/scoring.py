"""Score a step's trajectories: every reward is called once with all of them, and its return value is checked."""

from __future__ import annotations

import asyncio
import math
import numbers
from collections.abc import Awaitable, Iterator, Mapping, Sequence, Set
from inspect import isawaitable, iscoroutine
from typing import Any

import numpy as np
from torch import Tensor

from motet.core.errors import MotetError, RewardError
from motet.core.registry import first_line
from motet.core.trajectory import Failure, Group, Scores, Trajectory, completion_of
from motet.rewards.arguments import MOTET_ARGUMENTS, TRAINER, StepLog, plain_chat, token_ids
from motet.rewards.base import BoundReward
from motet.rewards.waiting import DeadlineExceeded, run_on_thread

Values = list[float | None]
RETURN_CONTRACT = "return one number per completion, or None where the reward does not apply"


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
    the reward does not apply there. Raises RewardError when a reward raises, violates its contract, or returns no
    finite number in the whole step.
    """
    valid = [(p, g, group.trajectories[g]) for p, group in enumerate(groups) for g in group.valid_indices]
    trajectories = [trajectory for _, _, trajectory in valid]
    log = StepLog() if log is None else log
    returned = _call_rewards(rewards, trajectories, log) if trajectories else [[] for _ in rewards]
    table: list[dict[str, Values]] = [{r.name: [None] * len(group.trajectories) for r in rewards} for group in groups]
    dropped: list[dict[int, Failure]] = [
        {g: t.failure for g, t in enumerate(group.trajectories) if t.failure is not None} for group in groups
    ]
    for reward, values in zip(rewards, returned, strict=True):
        values = _impute_group_mean(reward, valid, values)
        for (p, g, _), value in zip(valid, values, strict=True):
            if value is None or math.isfinite(value):
                table[p][reward.name][g] = value
            else:
                dropped[p].setdefault(g, Failure("reward", f"reward {reward.name!r} returned {value}"))
        for p, group in enumerate(groups):
            reason = Failure("reward", f"reward {reward.name!r} returned None for it but not for others of its group")
            for g in _dropped_by_none(group, [(g, v) for (q, g, _), v in zip(valid, values, strict=True) if q == p]):
                dropped[p].setdefault(g, reason)
    logged: list[dict[int, dict[str, Any]]] = [{} for _ in groups]
    for reward, named in log.extra.items():
        for place, (p, g, _) in enumerate(valid):
            logged[p].setdefault(g, {})[reward] = {column: values[place] for column, values in named.items()}
    return [
        Scores({name: tuple(values) for name, values in rows.items()}, failures, extra)
        for rows, failures, extra in zip(table, dropped, logged, strict=True)
    ]


def _impute_group_mean(reward: BoundReward, valid: Sequence[tuple[int, int, Trajectory]], values: Values) -> Values:
    """The values, with the group's mean for generations without any of the reward's acts."""
    given: dict[int, list[float]] = {}
    for (p, _, _), value in zip(valid, values, strict=True):
        if value is not None and math.isfinite(value):
            given.setdefault(p, []).append(value)
    return [
        sum(given[p]) / len(given[p])
        if value is None and p in given and not any(act.name in reward.acts for act in trajectory.acts)
        else value
        for (p, _, trajectory), value in zip(valid, values, strict=True)
    ]


def _dropped_by_none(group: Group, values: Sequence[tuple[int, float | None]]) -> list[int]:
    """Generations with None in a group where another has a value."""
    applies = any(value is not None for _, value in values)
    return [g for g, value in values if value is None] if applies else []


def _call_rewards(rewards: Sequence[BoundReward], trajectories: Sequence[Trajectory], log: StepLog) -> list[Values]:
    columns = _columns(trajectories)
    results: list[Any] = []
    try:
        for reward in rewards:
            results.append(_call(reward, trajectories, columns, log))
    except MotetError:
        for result in results:
            if iscoroutine(result):
                result.close()  # otherwise Python warns that it was never awaited
        raise
    waiting = [n for n, result in enumerate(results) if isawaitable(result)]
    if waiting:
        asked = [(rewards[n], results[n]) for n in waiting]
        for n, result in zip(waiting, _gather(asked, len(trajectories)), strict=True):
            results[n] = result
    for reward in rewards:
        log.check(reward.name, len(trajectories))
    return [_check_return(reward, result, len(trajectories)) for reward, result in zip(rewards, results, strict=True)]


def _call(reward: BoundReward, trajectories: Sequence[Trajectory], columns: dict[str, list[Any]], log: StepLog) -> Any:
    arguments = {**columns, **_trl_inputs(reward, trajectories)}
    if any(reward.takes(name) for name in TRAINER):
        arguments |= log.arguments(reward.name)
    try:
        if reward.timeout is None:
            return as_list(reward(**arguments))
        return run_on_thread(lambda: as_list(reward(**arguments)), reward.timeout)
    except MotetError:
        raise
    except (Exception, SystemExit) as error:
        raise as_reward_error(reward, error, len(trajectories)) from error


def as_list(result: Any) -> Any:
    """The items of a generator as a list, so that its code runs inside the call's error handling."""
    return list(result) if isinstance(result, Iterator) and not isawaitable(result) else result


def _trl_inputs(reward: BoundReward, trajectories: Sequence[Trajectory]) -> dict[str, list[Any]]:
    """`prompts`, `completions` and, if all acts have tokens, `completion_ids`, as new lists.

    Raises RewardError when the reward requires token ids, which denoising acts do not have.
    """
    prompts: list[Any] = []
    completions: list[Any] = []
    ids: list[Any] = []
    for trajectory in trajectories:
        acts = [act for act in trajectory.acts if act.name in reward.acts]
        shown = [act for act in trajectory.acts if act.name in reward.acts or act.name in reward.reads_acts]
        prompts.append(plain_chat((acts or trajectory.acts)[0].context.to_chat()))
        completions.append(completion_of(shown))
        ids.append(token_ids(shown))
    arguments = {"prompts": prompts, "completions": completions}
    if None not in ids:
        return {**arguments, "completion_ids": ids}
    if "completion_ids" in reward.required:
        raise RewardError(
            f"Reward {reward.name!r} requires completion_ids, but an image generated by denoising has no token ids.",
            fix="name text acts in rewards.acts, or score the image itself: completion_images.",
        )
    return arguments


def _columns(trajectories: Sequence[Trajectory]) -> dict[str, list[Any]]:
    """Every dataset column as a list with one entry per trajectory; None where a row lacks it."""
    names = dict.fromkeys(name for trajectory in trajectories for name in trajectory.task.columns)
    columns = {
        name: [trajectory.task.columns.get(name) for trajectory in trajectories]
        for name in names
        if name not in MOTET_ARGUMENTS
    }
    images = [trajectory.task.images or None for trajectory in trajectories]
    return columns | ({"images": images} if {"image", "images"} & set(names) else {})


async def _guard(reward: BoundReward, result: Awaitable[Any], count: int) -> Any:
    limit = asyncio.timeout(reward.timeout)
    try:
        async with limit:
            return as_list(await result)
    except MotetError:
        raise
    except (Exception, SystemExit) as error:
        raise as_reward_error(reward, DeadlineExceeded() if limit.expired() else error, count) from error


def _gather(asked: Sequence[tuple[BoundReward, Awaitable[Any]]], count: int) -> list[Any]:
    """Await all, on a thread with a loop of its own: a notebook's main thread already has a running one."""

    async def gather() -> list[Any]:
        return await asyncio.gather(*(_guard(reward, result, count) for reward, result in asked))

    slowest = max((reward for reward, _ in asked), key=lambda reward: reward.timeout or math.inf)
    try:  # a function that blocks without `await` blocks the loop, and its timeout too
        return run_on_thread(lambda: asyncio.run(gather()), slowest.timeout and slowest.timeout + 1.0)
    except DeadlineExceeded as error:
        raise as_reward_error(slowest, error, count) from error


def as_reward_error(reward: BoundReward, error: BaseException, count: int) -> RewardError:
    """What a reward raised, or that it took too long, as an error of motet."""
    if isinstance(error, DeadlineExceeded):
        return RewardError(
            f"Reward {reward.name!r} took longer than its timeout of {reward.timeout} s (called with {count} "
            "completions).",
            fix="increase rewards.timeout, or check what the function waits for.",
        )
    what = f"called sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"raised {first_line(error)}"
    as_text = isinstance(error, AttributeError) and str(error).startswith("'list' object has no attribute")
    hint = "a completion is a list of messages, whose text is completion[0]['content']; " if as_text else ""
    return RewardError(
        f"Reward {reward.name!r} {what} (called with {count} completions).",
        fix=f"{hint}correct the function, or return None for rows that it cannot score; see the traceback.",
    )


def _check_return(reward: BoundReward, result: Any, count: int) -> Values:
    """The return value as floats and Nones. Raises RewardError when it violates the contract."""
    try:
        if isinstance(result, str | bytes | Mapping | Set):
            raise TypeError
        returned = list(result)
    except TypeError:  # also for a tensor of one number
        raise RewardError(
            f"Reward {reward.name!r} returned a {type(result).__name__}, not a list of {count}.",
            fix=f"{RETURN_CONTRACT}.",
        ) from None
    if len(returned) != count:
        raise RewardError(
            f"Reward {reward.name!r} returned {len(returned)} values for {count} completions.",
            fix=f"{RETURN_CONTRACT}.",
        )
    values = [_number(value) for value in returned]
    for place, (value, number) in enumerate(zip(returned, values, strict=True)):
        if value is not None and number is None:
            raise RewardError(
                f"Reward {reward.name!r} returned {value!r:.80} ({type(value).__name__}) for completion {place}, "
                "not a number.",
                fix=f"{RETURN_CONTRACT}.",
            )
    given = [value for value in values if value is not None]
    if given and not any(math.isfinite(value) for value in given):
        raise RewardError(
            f"Reward {reward.name!r} returned no finite number in this step: {len(given)} of {count} values are NaN or "
            f"infinite, the first is {given[0]}.",
            fix="correct the reward: NaN for single completions drops them, NaN for all is an error.",
        )
    return values


def _number(value: Any) -> float | None:
    """A number, or a tensor or an array of one; None for anything else."""
    if isinstance(value, Tensor | np.ndarray) and math.prod(value.shape) == 1:
        value = value.item()
    return float(value) if isinstance(value, numbers.Real | np.bool_) else None
