"""A reward service for tests, without packages beyond motet's own: scripted values, failures, delays and hangs."""

from __future__ import annotations

import inspect
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from motet.core.errors import DataError
from motet.rewards.arguments import MOTET_ARGUMENTS
from motet.rewards.base import BoundReward
from motet.rewards.remote.protocol import (
    HEALTH_PATH,
    REWARDS_PATH,
    SCORE_PATH,
    RewardList,
    ScoreReply,
    ScoreRequest,
    ServedRewardInfo,
    decode_arguments,
    parse_request,
)


@dataclass(frozen=True)
class Fault:
    """What happens to one request for a score; the fields that are set do, in this order.

    `delay`: seconds before anything else. `hang`: no answer while the server runs. `disconnect`: the connection is
    closed. `status`: an error with that status, and `retry_after` seconds in its header. `body`: these bytes instead of
    a reply. `errors`: texts in place of the values of these completions. `truncate`: half of the reply's bytes.
    """

    delay: float = 0.0
    hang: bool = False
    disconnect: bool = False
    status: int | None = None
    retry_after: int | None = None
    body: bytes | None = None
    errors: Mapping[int, str] = field(default_factory=dict[int, str])
    truncate: bool = False


class FakeRewardServer:
    """A context manager: a reward service on a thread of this process, on a free port of 127.0.0.1.

        with FakeRewardServer({"length": lambda completions: [1.0] * len(completions)}) as server:
            server.faults.extend([Fault(status=503), None, Fault(hang=True)])
            ...  # requests to server.url

    `rewards` are reward functions by name, or a number for every completion; one call is made at a time. Each request
    for a score takes the first of `faults`, where None means no fault; once they are used, `fault` is that of all
    requests. `requests` are the well-formed ones that have come in, whatever happened to them. `token`: the bearer
    token that they need. A reward that raises is an error of every completion of the request.
    """

    def __init__(
        self, rewards: Mapping[str, Callable[..., Any] | float], *, port: int = 0, token: str | None = None
    ) -> None:
        self.rewards = {name: _bind(name, reward) for name, reward in rewards.items()}
        self.token = token
        self.faults: deque[Fault | None] = deque()
        self.fault: Fault | None = None
        self.requests: list[ScoreRequest] = []
        self._port = port
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._server: ThreadingHTTPServer | None = None

    @property
    def port(self) -> int:
        """Its port, which another server can take over once this one is closed."""
        return self._port

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> FakeRewardServer:
        handler = type("Handler", (_Handler,), {"fake": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def take(self, request: ScoreRequest) -> Fault:
        """Record a request; returns what happens to it."""
        with self._lock:
            self.requests.append(request)
            fault = self.faults.popleft() if self.faults else self.fault
        return fault or Fault()

    def wait_until_closed(self) -> None:
        """Return when the server is closed."""
        self._closed.wait()

    def reply(self, reward: BoundReward, request: ScoreRequest, errors: Mapping[int, str]) -> ScoreReply:
        """The values of a reward function, with errors in some places."""
        arguments, undecodable = decode_arguments(request)
        found: list[str | None] = [errors.get(place, error) for place, error in enumerate(undecodable)]
        places = [place for place, error in enumerate(found) if error is None]
        values: list[float | None] = [None] * len(found)
        try:
            with self._lock:
                taken = {name: [entries[place] for place in places] for name, entries in arguments.items()}
                returned = list(reward(**taken)) if places else []
        except Exception as error:  # of a user's function
            found = [one or f"{type(error).__name__}: {error}" for one in found]
        else:
            for place, value in zip(places, returned, strict=True):
                values[place] = None if value is None else float(value)
        return ScoreReply(values=values, errors=found)


def _bind(name: str, reward: Callable[..., Any] | float) -> BoundReward:
    if not callable(reward):
        value = float(reward)

        def constant(completions: list[Any]) -> list[float]:
            return [value] * len(completions)

        reward = constant
    parameters = inspect.signature(reward).parameters.values()
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    required = tuple(p.name for p in named if p.default is p.empty and p.name not in MOTET_ARGUMENTS)
    accepts = None if open_ended else frozenset(p.name for p in named)
    return BoundReward(name, 1.0, (), reward, {}, accepts, required_columns=required)


class _Handler(BaseHTTPRequestHandler):
    fake: FakeRewardServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        if self.path == HEALTH_PATH:
            self._send(200, b'{"ready":true}')
        elif self._rejected():
            pass
        elif self.path == REWARDS_PATH:
            infos = [_info(reward) for reward in self.fake.rewards.values()]
            self._send(200, RewardList(rewards=infos).model_dump_json().encode())
        else:
            self._error(404, "There is no such route.")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        prefix = SCORE_PATH.partition("{")[0]
        reward = self.fake.rewards.get(self.path.removeprefix(prefix)) if self.path.startswith(prefix) else None
        if self._rejected():
            return
        if reward is None:
            return self._error(404, f"There is no reward at {self.path}.")
        try:
            request = parse_request(body)
        except DataError as error:
            return self._error(422, error.problem)
        self._answer(reward, request, self.fake.take(request))

    def _answer(self, reward: BoundReward, request: ScoreRequest, fault: Fault) -> None:
        time.sleep(fault.delay)
        if fault.hang:
            self.fake.wait_until_closed()
        if fault.hang or fault.disconnect:
            self.close_connection = True
        elif fault.status is not None:
            self._error(fault.status, "A scripted failure.", fault.retry_after)
        else:
            body = fault.body
            if body is None:
                body = self.fake.reply(reward, request, fault.errors).model_dump_json().encode()
            self._send(200, body, len(body) // 2 if fault.truncate else None)

    def _rejected(self) -> bool:
        token = self.fake.token
        if token is None or self.headers.get("Authorization") == f"Bearer {token}":
            return False
        self._error(401, "The token is missing or wrong.")
        return True

    def _error(self, status: int, problem: str, retry_after: int | None = None) -> None:
        body = json.dumps({"error": {"problem": problem, "fix": "this is a fake server for tests."}}).encode()
        self._send(status, body, retry_after=retry_after)

    def _send(self, status: int, body: bytes, size: int | None = None, retry_after: int | None = None) -> None:
        """Send a reply; only its first `size` bytes if that is given."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", f"{retry_after}")
        self.end_headers()
        self.wfile.write(body[:size])
        self.close_connection = size is not None


def _info(reward: BoundReward) -> ServedRewardInfo:
    accepts = None if reward.accepts is None else sorted(reward.accepts)
    required = list(reward.required_columns)
    return ServedRewardInfo(
        name=reward.name, required_columns=required, accepts=accepts, reads_acts=[], info="for tests"
    )
