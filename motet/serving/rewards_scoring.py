"""Score a request: call the reward, find the completions that make it fail, never a number for a failure."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from inspect import isawaitable
from typing import Any

from motet.core.errors import MotetError, RewardError
from motet.rewards.arguments import StepLog
from motet.rewards.calling import as_list, as_reward_error, check_return
from motet.rewards.failures import Unscored, Value
from motet.rewards.remote.protocol import ScoreReply, ScoreRequest, decode_arguments, encode_value, error_text
from motet.serving.rewards_loading import LoadedReward


def score(loaded: LoadedReward, request: ScoreRequest, stopped: Callable[[], bool] = lambda: False) -> ScoreReply:
    """Call the reward with all completions whose images can be decoded.

    When it raises or violates its contract, it is called again with each half, down to the single completions that it
    fails for: at most two calls per completion, until `stopped`. NaN and infinity are errors of their completions.
    """
    arguments, errors = decode_arguments(request)
    call = _Call(loaded, arguments, errors, stopped)
    call.score([place for place, error in enumerate(errors) if error is None])
    return call.reply()


class _Call:
    """The values and errors of one request as they come in."""

    def __init__(
        self,
        loaded: LoadedReward,
        arguments: dict[str, list[Any]],
        errors: list[str | None],
        stopped: Callable[[], bool],
    ) -> None:
        self._loaded, self._arguments, self._stopped = loaded, arguments, stopped
        self._errors = errors
        self._values: list[float | None] = [None] * len(errors)
        self._metrics = StepLog()
        self._extra: dict[str, list[Any]] = {}

    def score(self, places: Sequence[int]) -> None:
        """Score the completions at some places of the request."""
        if self._stopped():
            for place in places:
                self._errors[place] = "the reward took longer than its limit"
            return
        if not places:
            return
        reward, log = self._loaded.reward, StepLog()
        try:
            values, extra = self._call(places, log)
        except (Exception, SystemExit) as error:
            if len(places) > 1:
                middle = len(places) // 2
                self.score(places[:middle])
                self.score(places[middle:])
            else:
                known = error if isinstance(error, MotetError) else as_reward_error(reward, error, 1)
                self._errors[places[0]] = error_text(known)
            return
        for place, value in zip(places, values, strict=True):
            if isinstance(value, Unscored):
                self._errors[place] = value.reason
            elif value is None or math.isfinite(value):
                self._values[place] = value
            else:
                self._errors[place] = f"reward {reward.name!r} returned {value}"
        for name, logged in log.values.items():
            self._metrics.values.setdefault(name.removeprefix(f"{reward.name}/"), []).extend(logged)
        for column, entries in extra.items():
            column = self._extra.setdefault(column, [None] * len(self._errors))
            for place, entry in zip(places, entries, strict=True):
                column[place] = entry

    def _call(self, places: Sequence[int], log: StepLog) -> tuple[list[Value], dict[str, list[Any]]]:
        """The values of one call, and the columns that it logged. Raises what the reward raises, and RewardError."""
        reward = self._loaded.reward
        arguments: dict[str, Any] = {
            name: [entries[place] for place in places] for name, entries in self._arguments.items()
        }
        if self._loaded.logs:
            arguments |= {name: made for name, made in log.arguments(reward.name).items() if name != "trainer_state"}
        result = as_list(reward(**arguments))
        if isawaitable(result):
            result = as_list(asyncio.run(_wait_for(result)))
        values = check_return(reward.name, result, len(places))
        log.check(reward.name, len(places))
        for name, number in log.metrics.items():
            if not math.isfinite(number):
                raise RewardError(f"Reward {reward.name!r} logged {number} as {name!r}.", fix="log finite numbers.")
        extra = {column: encode_value(entries, column) for column, entries in log.extra.get(reward.name, {}).items()}
        return values, extra

    def reply(self) -> ScoreReply:
        """What has come in."""
        return ScoreReply(values=self._values, errors=self._errors, metrics=self._metrics.metrics, extra=self._extra)


async def _wait_for(result: Any) -> Any:
    return await result


def join(requests: Sequence[ScoreRequest]) -> ScoreRequest:
    """Requests with the same columns as one, in order."""
    if len(requests) == 1:
        return requests[0]
    return ScoreRequest.model_construct(
        prompts=[chat for request in requests for chat in request.prompts],
        completions=[chat for request in requests for chat in request.completions],
        columns={
            name: [entry for request in requests for entry in request.columns[name]] for name in requests[0].columns
        },
    )


def split(reply: ScoreReply, counts: Sequence[int]) -> list[ScoreReply]:
    """The reply to joined requests, one for each: `counts` completions, in order."""
    if len(counts) == 1:
        return [reply]
    parts: list[ScoreReply] = []
    start = 0
    for count in counts:
        end = start + count
        extra = {column: entries[start:end] for column, entries in reply.extra.items()}
        values, errors = reply.values[start:end], reply.errors[start:end]
        parts.append(ScoreReply(values=values, errors=errors, metrics=reply.metrics, extra=extra))
        start = end
    return parts
