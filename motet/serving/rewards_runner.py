"""Run a reward for the server: on a thread of its process, or in a process of its own that can be killed."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Any, NoReturn, Protocol, runtime_checkable

from pydantic import BaseModel

from motet.core.errors import ConfigError, MotetError, RewardError
from motet.core.registry import first_line
from motet.report.terminal import say
from motet.rewards.remote.protocol import ScoreReply, ScoreRequest, ServedRewardInfo, parse_reply
from motet.rewards.waiting import DeadlineExceeded, future_on_thread
from motet.rewards.worker_process import WorkerProcess
from motet.serving.http import HttpError
from motet.serving.rewards_config import ServedReward
from motet.serving.rewards_loading import LoadedReward, load_models, resolve_served
from motet.serving.rewards_scoring import score
from motet.serving.rewards_worker import Hello

RETRY_AFTER = 2
"""Seconds after which a client may ask again while a reward is not ready."""
_LONGEST_PAUSE = 30.0
_MODULE = "motet.serving.rewards_worker"


class State(StrEnum):
    """What a reward is doing."""

    LOADING = "loading"
    READY = "ready"
    HANGING = "hanging"
    """A call in this process took longer than its limit, and has not returned yet."""
    RESTARTING = "restarting"


@runtime_checkable
class Runner(Protocol):
    """A reward that is called with one request at a time."""

    state: State
    info: ServedRewardInfo
    logs: bool
    restarts: int

    async def start(self) -> None:
        """Load the reward. Raises MotetError."""
        ...

    async def score(self, request: ScoreRequest) -> ScoreReply:
        """Call the reward. Raises HttpError: 504 when it took too long, 503 when its process died."""
        ...

    async def close(self) -> None:
        """End whatever runs."""
        ...


def make_runner(served: ServedReward) -> Runner:
    """The runner of a served reward. Raises ConfigError for a reward of this process that cannot be resolved."""
    return ProcessRunner(served) if served.own_process else ThreadRunner(served)


def not_ready(route: str, state: State) -> HttpError:
    """The error of a reward that cannot be called now."""
    problem = f"Reward {route!r} is not ready: {state.value}."
    return HttpError(503, problem, fix="ask again later.", headers={"Retry-After": str(RETRY_AFTER)})


def _too_long(served: ServedReward) -> HttpError:
    problem = f"Reward {served.route!r} took longer than {served.timeout:g} s."
    return HttpError(504, problem, fix="send fewer completions, or increase its timeout on the server.")


class ThreadRunner:
    """A reward of this process, called on a thread. Python cannot end a thread: after a call that took too long, the
    reward is not ready until that call returns."""

    def __init__(self, served: ServedReward) -> None:
        self._served = served
        self._loaded: LoadedReward = resolve_served(served)
        self.info, self.logs = self._loaded.info, self._loaded.logs
        self.state, self.restarts = State.LOADING, 0

    async def start(self) -> None:
        """As `Runner.start`."""
        await _on_thread(lambda: load_models(self._loaded, self._served.device))
        self.state = State.READY

    async def score(self, request: ScoreRequest) -> ScoreReply:
        """As `Runner.score`."""
        stopped = threading.Event()
        call = _on_thread(lambda: score(self._loaded, request, stopped.is_set))
        done, _ = await asyncio.wait({call}, timeout=self._served.timeout)
        if done:
            return call.result()
        stopped.set()
        self.state = State.HANGING
        call.add_done_callback(self._returned)
        raise _too_long(self._served)

    async def close(self) -> None:
        """As `Runner.close`: the thread ends with the process."""

    def _returned(self, call: asyncio.Future[Any]) -> None:
        call.exception()  # it was reported as too long; asking for it keeps asyncio from reporting it again
        self.state = State.READY


def _on_thread(work: Callable[[], Any]) -> asyncio.Future[Any]:
    """The result of work on a daemon thread; whatever it raises as an error of motet."""

    def run() -> Any:
        try:
            return work()
        except MotetError:
            raise
        except BaseException as error:
            raise RewardError(f"A reward failed: {first_line(error)}.", fix="see the server's log.") from error

    return future_on_thread(run)


class ProcessRunner:
    """A reward in a process of its own: killed when a call takes too long, and started again whenever it ends."""

    def __init__(self, served: ServedReward) -> None:
        self._served = served
        self._process: WorkerProcess | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._calling = False
        self.info = ServedRewardInfo(name=served.route, required_columns=[], accepts=None, reads_acts=[], info="")
        self.logs = False
        self.state, self.restarts = State.LOADING, 0

    async def start(self) -> None:
        """As `Runner.start`."""
        served = self._served
        command = [served.python or sys.executable, "-m", _MODULE]
        try:
            self._process = WorkerProcess(command)
        except OSError as error:
            raise ConfigError(
                f"python={command[0]!r} of reward {served.name!r} cannot be started: {error.strerror}.",
                fix="name the Python of a virtual environment: path/to/venv/bin/python.",
            ) from None
        try:
            hello = Hello.model_validate_json(await self._exchange(served, None))
        except (EOFError, ValueError):
            code = await self._kill()
            raise ConfigError(
                f"The process of reward {served.name!r} ended with status {code} while it loaded.",
                fix=f"see its messages above; {command[0]} must have motet and the reward's packages.",
            ) from None
        if hello.error is not None or hello.info is None:
            await self._kill()
            problem, fix = (hello.error.problem, hello.error.fix) if hello.error else ("It sent no reward.", "")
            raise ConfigError(problem, fix=fix)
        self.info, self.logs, self.state = hello.info, hello.logs, State.READY
        self._watching = asyncio.create_task(self._watch(self._process))

    async def score(self, request: ScoreRequest) -> ScoreReply:
        """As `Runner.score`."""
        self._calling = True
        try:
            body = await self._exchange(request, self._served.timeout)
            return parse_reply(body, len(request.completions))
        except DeadlineExceeded:
            await self._restart(f"took longer than {self._served.timeout:g} s and was killed")
            raise _too_long(self._served) from None
        except (EOFError, RewardError) as error:
            await self._died(error)
        finally:
            self._calling = False

    async def close(self) -> None:
        """As `Runner.close`."""
        if self._restarting is not None:
            self._restarting.cancel()
        await self._kill()

    async def _exchange(self, message: BaseModel, limit: float | None) -> bytes:
        """The answer to a message. Raises EOFError when the process is gone, DeadlineExceeded after its limit."""
        process, body = self._process, message.model_dump_json().encode()
        assert process is not None
        return await future_on_thread(lambda: process.exchange(body, limit))

    async def _watch(self, process: WorkerProcess) -> None:
        """Start it again if it ends between calls."""
        await future_on_thread(process.wait)
        if self._process is process and not self._calling:
            await self._restart("ended")

    async def _died(self, error: BaseException) -> NoReturn:
        code = await self._restart("ended")
        problem = f"The process of reward {self._served.route!r} ended with status {code} during the call."
        raise HttpError(
            503,
            problem,
            fix="ask again: it is started again; see the server's log for why.",
            headers={"Retry-After": str(RETRY_AFTER)},
        ) from error

    async def _restart(self, reason: str) -> int | None:
        """Kill what is left of the process and start it again in the background; returns its exit status."""
        self.state = State.RESTARTING
        code = await self._kill()
        say(f"Reward {self._served.route!r}: its process {reason} (status {code}); it is started again.", error=True)
        self._restarting = asyncio.create_task(self._start_again())
        return code

    async def _start_again(self) -> None:
        pause = 1.0
        while True:
            self.restarts += 1
            try:
                return await self.start()
            except MotetError as error:
                say(f"{error} Trying again in {pause:g} s.", error=True)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _kill(self) -> int | None:
        """End the process with all that it started; returns its exit status."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        return await future_on_thread(process.close)
