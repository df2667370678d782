"""Calls of rewards with their arguments and time limits, and the check of what they return."""

from __future__ import annotations

import asyncio
import math
import numbers
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from inspect import isawaitable, iscoroutine, unwrap
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from motet.core.errors import MotetError, RewardError
from motet.core.registry import first_line
from motet.core.trajectory import Trajectory, completion_of
from motet.rewards.arguments import MOTET_ARGUMENTS, TRAINER, StepLog, plain_chat, token_ids
from motet.rewards.base import BoundReward
from motet.rewards.failures import FailurePolicy, LostCall, Unscored, Value, handle_failures
from motet.rewards.waiting import DeadlineExceeded, run_on_thread

RETURN_CONTRACT = "return one number per completion, or None where the reward does not apply"


def call_rewards(rewards: Sequence[BoundReward], trajectories: Sequence[Trajectory], log: StepLog) -> list[list[Value]]:
    """The values of every reward for all trajectories; failures are handled by each reward's `on_failure`.

    Async rewards run concurrently, sync ones one after the other. Raises RewardError as `handle_failures` does, and
    when a reward returned no finite number.
    """
    columns = _columns(trajectories)
    scorings = [
        _Scoring(reward, {**columns, **_trl_inputs(reward, trajectories)}, len(trajectories), log) for reward in rewards
    ]
    outcomes = _first_calls([scoring.first_call() for scoring in scorings])
    return [scoring.finish(outcome) for scoring, outcome in zip(scorings, outcomes, strict=True)]


def call_once(reward: BoundReward, arguments: Mapping[str, list[Any]], log: StepLog) -> list[Value]:
    """One call of a reward. Raises RewardError for what it raises, and for a malformed return value."""
    call = _RewardCall(replace(reward, failure=FailurePolicy()), arguments, range(len(arguments["completions"])), log)
    (outcome,) = _first_calls([call])
    assert not isinstance(outcome, RewardError)  # it would have been raised
    return outcome


@dataclass(frozen=True, eq=False)
class _Scoring:
    """A reward's part in a step; `arguments` are lists of `count` entries."""

    reward: BoundReward
    arguments: Mapping[str, list[Any]]
    count: int
    log: StepLog

    def first_call(self) -> _RewardCall:
        return _RewardCall(self.reward, self.arguments, range(self.count), self.log)

    def finish(self, outcome: list[Value] | RewardError) -> list[Value]:
        """The values, given the outcome of the first call."""
        values = handle_failures(self.reward.name, self.reward.failure, outcome, self.count, self._call_again)
        _check_finite(self.reward, values)
        return values

    def _call_again(self, places: Sequence[int]) -> list[Value]:
        part = {name: [entries[place] for place in places] for name, entries in self.arguments.items()}
        (outcome,) = _first_calls([_RewardCall(self.reward, part, places, self.log, self.count)])
        if isinstance(outcome, RewardError):
            raise outcome
        return outcome


@dataclass(eq=False)
class _RewardCall:
    """One call with the completions at `places`; what it logs counts only when it succeeds."""

    reward: BoundReward
    arguments: Mapping[str, list[Any]]
    places: Sequence[int]
    step_log: StepLog
    total: int | None = None
    log: StepLog = field(init=False)

    def __post_init__(self) -> None:
        self.log = StepLog(self.step_log.step, self.step_log.steps, self.step_log.epoch)

    def start(self) -> Any:
        """What the reward returned; of an async one what is to be awaited. Raises RewardError for what it raises."""
        reward, arguments = self.reward, dict(self.arguments)
        if any(reward.takes(name) for name in TRAINER):
            arguments |= self.log.arguments(reward.name)
        try:
            if reward.failure.timeout is None or reward.failure.process:  # a worker process has limits of its own
                return as_list(reward(**arguments))
            return run_on_thread(lambda: as_list(reward(**arguments)), reward.failure.timeout)
        except MotetError:
            raise
        except (Exception, SystemExit) as error:
            raise as_reward_error(reward, error, len(self.places)) from error

    async def wait(self, result: Awaitable[Any]) -> Any:
        """The result of an async reward, or RewardError if its policy handles that."""
        limit = asyncio.timeout(None if self.reward.failure.process else self.reward.failure.timeout)
        try:
            async with limit:
                return as_list(await result)
        except MotetError as error:
            return self.outcome_of(error)
        except (Exception, SystemExit) as error:
            failed = DeadlineExceeded() if limit.expired() else error
            wrapped = as_reward_error(self.reward, failed, len(self.places))
            wrapped.__cause__ = error
            return self.outcome_of(wrapped)

    def outcome_of(self, error: MotetError) -> RewardError:
        """The error as an outcome; raises it unless the policy handles it."""
        if not (isinstance(error, RewardError) and self.reward.failure.handles):
            raise error
        return error

    def check(self, result: Any) -> list[Value] | RewardError:
        """The values that a call returned; what it logged is then the step's."""
        if isinstance(result, RewardError):
            return result
        count = len(self.places)
        try:
            values = check_return(self.reward.name, result, count)
            self.log.check(self.reward.name, count)
        except RewardError as error:
            return self.outcome_of(error)
        self.step_log.merge(self.log, self.reward.name, self.places, self.total or count)
        return values


def _first_calls(calls: Sequence[_RewardCall]) -> list[list[Value] | RewardError]:
    """The outcome of every call. Raises RewardError where a reward's policy does not handle one."""
    results: list[Any] = []
    try:
        for call in calls:
            try:
                results.append(call.start())
            except RewardError as error:
                results.append(call.outcome_of(error))
    except MotetError:
        for result in results:
            if iscoroutine(result):
                result.close()  # otherwise Python warns that it was never awaited
        raise
    waiting = [n for n, result in enumerate(results) if isawaitable(result)]
    if waiting:
        asked = [(calls[n], results[n]) for n in waiting]
        for n, result in zip(waiting, _gather(asked), strict=True):
            results[n] = result
    return [call.check(result) for call, result in zip(calls, results, strict=True)]


def _gather(asked: Sequence[tuple[_RewardCall, Awaitable[Any]]]) -> list[Any]:
    """Await all, on a thread with a loop of its own: a notebook's main thread already has a running one."""

    async def gather() -> list[Any]:
        return await asyncio.gather(*(call.wait(result) for call, result in asked))

    def limit_of(call: _RewardCall) -> float:
        limit = None if call.reward.failure.process else call.reward.failure.timeout
        return math.inf if limit is None else limit

    slowest = max((call for call, _ in asked), key=limit_of)
    limit = limit_of(slowest)
    try:  # a function that blocks without `await` blocks the loop, and its timeout too
        return run_on_thread(lambda: asyncio.run(gather()), None if limit == math.inf else limit + 1.0)
    except DeadlineExceeded as error:
        wrapped = as_reward_error(slowest.reward, error, len(slowest.places))
        wrapped.__cause__ = error
        return [call.outcome_of(wrapped) for call, _ in asked]


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


def as_reward_error(reward: BoundReward, error: BaseException, count: int) -> RewardError:
    """What a reward raised, or that it took too long, as an error of motet."""
    if isinstance(error, DeadlineExceeded):
        return LostCall(
            f"Reward {reward.name!r} took longer than its timeout of {reward.failure.timeout} s (called with {count} "
            "completions).",
            fix="increase rewards.on_failure.timeout, or check what the function waits for.",
        )
    what = f"called sys.exit({error.code!r})" if isinstance(error, SystemExit) else f"raised {first_line(error)}"
    what += _place_in_file_of(reward.function, error)
    as_text = isinstance(error, AttributeError) and str(error).startswith("'list' object has no attribute")
    hint = "a completion is a list of messages, whose text is completion[0]['content']; " if as_text else ""
    return RewardError(
        f"Reward {reward.name!r} {what} (called with {count} completions).",
        fix=f"{hint}correct the function, or return None for rows that it cannot score; see the traceback.",
    )


def _place_in_file_of(function: Callable[..., Any], error: BaseException) -> str:
    """` at reward.py:12`: the innermost line of the traceback in the file of a function; empty if there is none."""
    called = function if hasattr(function, "__code__") else type(function).__call__
    code = getattr(unwrap(called), "__code__", None)
    frames = [one for one in traceback.extract_tb(error.__traceback__) if code and one.filename == code.co_filename]
    return f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""


def check_return(reward: str, result: Any, count: int) -> list[Value]:
    """The return value as floats, Nones and Unscored. Raises RewardError when it violates the contract."""
    try:
        if isinstance(result, str | bytes | Mapping | Set):
            raise TypeError
        returned = list(result)
    except TypeError:  # also for a tensor of one number
        raise RewardError(
            f"Reward {reward!r} returned a {type(result).__name__}, not a list of {count}.",
            fix=f"{RETURN_CONTRACT}.",
        ) from None
    if len(returned) != count:
        raise RewardError(
            f"Reward {reward!r} returned {len(returned)} values for {count} completions.",
            fix=f"{RETURN_CONTRACT}.",
        )
    values = [value if isinstance(value, Unscored) else _number(value) for value in returned]
    for place, (value, number) in enumerate(zip(returned, values, strict=True)):
        if value is not None and number is None:
            raise RewardError(
                f"Reward {reward!r} returned {value!r:.80} ({type(value).__name__}) for completion {place}, "
                "not a number.",
                fix=f"{RETURN_CONTRACT}.",
            )
    return values


def _check_finite(reward: BoundReward, values: Sequence[Value]) -> None:
    """Raise RewardError when a reward returned no finite number, but others."""
    given = [value for value in values if isinstance(value, float)]
    if given and not any(math.isfinite(value) for value in given):
        raise RewardError(
            f"Reward {reward.name!r} returned no finite number in this step: {len(given)} of {len(values)} values are "
            f"NaN or infinite, the first is {given[0]}.",
            fix="correct the reward: NaN for single completions drops them, NaN for all is an error.",
        )


def _number(value: Any) -> float | None:
    """A number, or a tensor or an array of one; None for anything else."""
    if isinstance(value, Tensor | np.ndarray) and math.prod(value.shape) == 1:
        value = value.item()
    return float(value) if isinstance(value, numbers.Real | np.bool_) else None
