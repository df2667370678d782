"""A reward in a worker process (`on_failure.process`): killed when a call takes too long, started again when it died.

The messages are JSON with images as PNG (`motet.rewards.worker` is the other side).
"""

from __future__ import annotations

import json
import sys
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from motet.core.errors import ConfigError, DataError, MotetError, RewardError
from motet.core.registry import PYTHON
from motet.rewards.base import BoundReward
from motet.rewards.failures import LostCall, Unscored, Value
from motet.rewards.remote.protocol import encode_arguments
from motet.rewards.waiting import DeadlineExceeded, await_on_thread
from motet.rewards.worker_process import WorkerProcess

START_TIMEOUT = 600.0
"""Seconds that a process may take to import what it needs and to load the reward's models."""
_ERRORS: dict[str, type[MotetError]] = {kind.__name__: kind for kind in (ConfigError, DataError, RewardError)}


def check_process(reward: BoundReward) -> None:
    """Raise ConfigError for a reward that cannot run in a process of its own."""
    reason = ""
    if reward.needs_policy:
        reason = "uses the policy, which stays in this process"
    elif reward.config is None or reward.config.name.startswith(PYTHON):
        reason = "is an object of this program"
    if reason:
        raise ConfigError(
            f"rewards.on_failure.process is true for {reward.name!r}, which {reason}.",
            fix="name a function by its path, file.py:function, or leave out process.",
        )


class ProcessReward:
    """The function of a reward that a worker process calls, one call at a time. `device` is for the reward's models."""

    def __init__(self, reward: BoundReward, device: str) -> None:
        check_process(reward)
        assert reward.config is not None
        self.name, self.timeout = reward.name, reward.failure.timeout
        plain = reward.config.model_copy(update={"on_failure": type(reward.config)(name="-").on_failure})
        self._hello = {"name": reward.name, "config": plain.model_dump(mode="json"), "device": device}
        self._hello["acts"] = dict(reward.scenario_acts)
        self._lock = threading.Lock()
        self._process: WorkerProcess | None = None
        self._start()

    async def __call__(self, **arguments: Any) -> list[Value]:
        """The values of a call; other rewards run meanwhile.

        Raises LostCall when the process dies, DeadlineExceeded when it takes too long, and what the reward raises.
        """
        log_metric, log_extra = (arguments.pop(name, None) for name in ("log_metric", "log_extra"))
        state = arguments.pop("trainer_state", None)
        count = max(len(entries) for entries in arguments.values())
        for name in ("prompts", "completions"):  # what the reward does not take is sent empty
            arguments.setdefault(name, [[]] * count)
        progress = None if state is None else [state.global_step, state.max_steps, state.epoch]
        reply = await await_on_thread(lambda: self._call({"progress": progress, **encode_arguments(arguments)}))
        for name, values in reply["metrics"].items():
            for value in values:
                log_metric(name.removeprefix(f"{self.name}/"), value)
        for column, values in reply["extra"].items():
            log_extra(column, values)
        pairs = zip(reply["values"], reply["reasons"], strict=True)
        return [value if reason is None else Unscored(reason) for value, reason in pairs]

    def _call(self, request: Mapping[str, Any]) -> Any:
        with self._lock:
            if self._process is None:
                self._start()
            return _result(self._exchange(request, self.timeout))

    def _start(self) -> None:
        self._process = WorkerProcess([sys.executable, "-m", "motet.rewards.worker"])
        weakref.finalize(self, WorkerProcess.close, self._process)
        try:
            _result(self._exchange(self._hello, START_TIMEOUT))
        except DeadlineExceeded:
            raise LostCall(
                f"The process of reward {self.name!r} did not start within {START_TIMEOUT:g} s.",
                fix="see what the reward waits for when it is loaded.",
            ) from None

    def _exchange(self, message: Mapping[str, Any], limit: float | None) -> Any:
        """Send a message and read the reply, within a limit in seconds; otherwise the process is ended."""
        process = self._process
        assert process is not None
        try:
            return json.loads(process.exchange(json.dumps(message).encode(), limit))
        except (DeadlineExceeded, EOFError, ValueError) as error:
            self._process = None
            code = process.close()
            if isinstance(error, DeadlineExceeded):
                raise
            raise LostCall(
                f"The process of reward {self.name!r} ended with status {code} during a call.",
                fix="see its messages above; a function in a worker process must not end it.",
            ) from None


def _result(reply: Any) -> Any:
    """The reply, or the error that it holds."""
    error = reply.get("error")
    if error is not None:
        raise _ERRORS.get(error["kind"], RewardError)(error["problem"], fix=error["fix"])
    return reply
