"""The worker process of a reward: `python -m motet.rewards.worker`, started by `motet.rewards.process`.

The first message says which reward to load; every further one holds the arguments of a call.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from motet.config.schema import RewardConfig
from motet.core.errors import MotetError, RewardError
from motet.core.registry import first_line
from motet.rewards.arguments import StepLog
from motet.rewards.base import BoundReward, bind_policy
from motet.rewards.calling import call_once
from motet.rewards.failures import Unscored
from motet.rewards.no_policy import NoPolicy
from motet.rewards.remote.protocol import ScoreRequest, decode_arguments
from motet.rewards.resolving import resolve
from motet.rewards.worker_process import answer_messages


def load(hello: Mapping[str, Any]) -> BoundReward:
    """The reward, with its models."""
    bound = resolve(RewardConfig.model_validate(hello["config"]), hello["acts"], None)
    (ready,) = bind_policy([replace(bound, name=hello["name"])], NoPolicy(hello["device"]))
    return ready


def score(reward: BoundReward, message: dict[str, Any]) -> dict[str, Any]:
    """The reply to one call. Raises RewardError as `call_once` does."""
    progress = message.pop("progress")
    arguments, errors = decode_arguments(ScoreRequest.model_validate(message))
    failed = next((error for error in errors if error is not None), None)
    if failed is not None:
        raise RewardError(f"Reward {reward.name!r} cannot be given its arguments: {failed}.", fix="leave out process.")
    log = StepLog() if progress is None else StepLog(*progress)
    values = call_once(reward, arguments, log)
    return {
        "values": [None if isinstance(value, Unscored) else value for value in values],
        "reasons": [value.reason if isinstance(value, Unscored) else None for value in values],
        "metrics": log.values,
        "extra": log.extra.get(reward.name, {}),
    }


class _Worker:
    """Answers the first message by loading the reward, every further one by a call."""

    def __init__(self) -> None:
        self._reward: BoundReward | None = None

    def __call__(self, body: bytes) -> bytes:
        message = json.loads(body)
        try:
            if self._reward is None:
                self._reward, reply = load(message), {}
            else:
                reply = score(self._reward, message)
        except (Exception, SystemExit) as error:
            known = (
                error if isinstance(error, MotetError) else RewardError(first_line(error), fix="correct the reward.")
            )
            reply = {"error": {"kind": type(known).__name__, "problem": known.problem, "fix": known.fix}}
        try:
            return json.dumps(reply).encode()
        except (TypeError, ValueError) as error:
            problem = f"What the reward logged cannot be sent: {first_line(error)}."
            fix = "log numbers, texts and lists of them."
            return json.dumps({"error": {"kind": "RewardError", "problem": problem, "fix": fix}}).encode()


if __name__ == "__main__":
    answer_messages(_Worker())
