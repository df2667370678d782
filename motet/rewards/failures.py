"""What happens when a reward fails: the run ends, trajectories without a value are dropped, or it is called again.

A failure is a call that raises RewardError (`motet.rewards.calling` makes one of whatever a reward raises, of a timeout
and of a malformed return value), or `Unscored` in the place of a value. It never becomes a number.
"""

from __future__ import annotations

import math
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from motet.config.choice import Choice
from motet.config.options import read_options
from motet.config.schema import ON_FAILURE
from motet.core.errors import RewardError

BACKOFF = 0.5
"""Seconds before the first retry, doubled before each further one, times a random factor between 0.5 and 1."""


@dataclass(frozen=True)
class Unscored:
    """Returned by a reward in the place of a value: this completion could not be scored, and why."""

    reason: str


Value = float | None | Unscored
Call = Callable[[Sequence[int]], list[Value]]
"""Calls a reward with the completions at some places; returns their values, or raises RewardError."""


class LostCall(RewardError):
    """A call that took all of its time, or whose process died: to repeat it is expensive."""


@dataclass(frozen=True)
class FailurePolicy:
    """`rewards.N.on_failure`: `retries` further calls, then `drop` or an error; the defaults are those of `raise`."""

    timeout: float | None = None
    process: bool = False
    retries: int = 0
    drop: bool = False

    @classmethod
    def of(cls, choice: Choice) -> FailurePolicy:
        """The policy of a recipe's choice. Raises ConfigError for an option that it does not have."""
        options: dict[str, Any] = read_options(choice, ON_FAILURE[choice.name], "rewards.on_failure").model_dump()
        drop = options.pop("then", choice.name) == "drop"
        return cls(**options, drop=drop)

    @property
    def handles(self) -> bool:
        """Whether a failure may be more than an error."""
        return self.drop or self.retries > 0


def handle_failures(
    reward: str, policy: FailurePolicy, first: list[Value] | RewardError, count: int, call: Call
) -> list[Value]:
    """The values of `count` completions, given the outcome of the first call with all of them.

    With `drop`, the result has `Unscored` for those that could not be scored. A call that fails as a whole is repeated
    in halves until the failing completions are alone; after 2 + 2 log2(count) calls that took all of their time, or
    killed their process, the parts that are left are not divided further.

    Raises RewardError where the policy says so, and when there is no value for any completion.
    """
    if isinstance(first, RewardError):
        values, error = _all_unscored(first, count), first
    else:
        values, error = list(first), None
    for retry in range(policy.retries):
        failed = _unscored(values)
        if not failed:
            return values
        time.sleep(BACKOFF * 2**retry * random.uniform(0.5, 1.0))
        error = _call(call, failed, values)
    failed = _unscored(values)
    if error is not None and policy.drop and len(failed) > 1:
        call_in_parts(call, failed, values)
        failed = _unscored(values)
    if not failed:
        return values
    if error is not None and not policy.drop:
        raise error
    if not policy.drop or len(failed) == count:
        raise RewardError(
            f"Reward {reward!r} could not score {len(failed)} of {count} completions; the first of them: "
            f"{reason_of(values[failed[0]])}",
            fix="correct the cause."
            if policy.drop
            else "correct the cause, or drop such trajectories: rewards.on_failure=drop.",
        )
    return values


def reason_of(value: Value) -> str:
    """Why a completion has no value."""
    return value.reason if isinstance(value, Unscored) else ""


def _unscored(values: Sequence[Value]) -> list[int]:
    return [place for place, value in enumerate(values) if isinstance(value, Unscored)]


def _all_unscored(error: RewardError, count: int) -> list[Value]:
    return [Unscored(error.problem)] * count


def _call(call: Call, places: Sequence[int], values: list[Value]) -> RewardError | None:
    """Call again with some completions and fill in what comes; returns the error if the whole call fails."""
    try:
        found, error = call(places), None
    except RewardError as failure:
        found, error = _all_unscored(failure, len(places)), failure
    for place, value in zip(places, found, strict=True):
        values[place] = value
    return error


def call_in_parts(call: Call, places: Sequence[int], values: list[Value]) -> None:
    """Fill in the values at some places, whose call failed as a whole, by calls with halves of them, and so on."""
    lost, most = 0, 2 + 2 * math.ceil(math.log2(len(places)))
    parts = deque(_halves(places))
    while parts and lost < most:
        part = parts.popleft()
        error = _call(call, part, values)
        lost += isinstance(error, LostCall)
        if error is not None and len(part) > 1:
            parts += _halves(part)


def _halves(places: Sequence[int]) -> list[Sequence[int]]:
    half = len(places) // 2
    return [places[:half], places[half:]]
