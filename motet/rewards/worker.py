"""The worker process of a reward: `python -m motet.rewards.worker`, started by `motet.rewards.process`.

It reads and writes frames on its standard input and output. The first one it reads says which reward to load; every
further one holds the arguments of a call. It ends with its input.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
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
from motet.rewards.process import read_frame, write_frame
from motet.rewards.remote.protocol import ScoreRequest, decode_arguments
from motet.rewards.resolving import resolve


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


def main() -> None:
    """Answer frames until the input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a reward prints must not be between the frames
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends this process
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(messages,), daemon=True).start()
    reward: BoundReward | None = None
    while True:
        message = messages.get()
        try:
            if reward is None:
                reward, reply = load(message), {}
            else:
                reply = score(reward, message)
        except (Exception, SystemExit) as error:
            known = (
                error if isinstance(error, MotetError) else RewardError(first_line(error), fix="correct the reward.")
            )
            reply = {"error": {"kind": type(known).__name__, "problem": known.problem, "fix": known.fix}}
        try:
            write_frame(replies, reply)
        except (TypeError, ValueError) as error:
            problem = f"What the reward logged cannot be sent: {first_line(error)}."
            fix = "log numbers, texts and lists of them."
            write_frame(replies, {"error": {"kind": "RewardError", "problem": problem, "fix": fix}})


def _read(messages: queue.SimpleQueue[Any]) -> None:
    """Hand over the messages; end the process at once with its input, even while the reward hangs."""
    while True:
        try:
            messages.put(read_frame(sys.stdin.buffer))
        except EOFError:
            os._exit(0)


if __name__ == "__main__":
    main()
