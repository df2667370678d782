"""The queue of one reward: requests that wait together are joined into one call, and its answer is split again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from motet.core.errors import MotetError
from motet.rewards.remote.protocol import ScoreReply, ScoreRequest
from motet.serving.http import HttpError
from motet.serving.rewards_config import BatchingConfig
from motet.serving.rewards_metrics import ServiceMetrics
from motet.serving.rewards_runner import RETRY_AFTER, Runner, State, not_ready
from motet.serving.rewards_scoring import join, split


@dataclass(eq=False)
class _Waiting:
    """A request, and where its reply goes; a client that is gone has cancelled it. `arrived`: the loop's time."""

    request: ScoreRequest
    reply: asyncio.Future[ScoreReply]
    arrived: float
    columns: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.columns = tuple(sorted(self.request.columns))

    @property
    def size(self) -> int:
        return len(self.request.completions)


class RewardQueue:
    """Requests for one reward, at most `limit` of them, called one batch after the other."""

    def __init__(
        self, route: str, runner: Runner, batching: BatchingConfig, limit: int, metrics: ServiceMetrics
    ) -> None:
        self.route, self.runner = route, runner
        self._batching, self._limit, self._metrics = batching, limit, metrics
        self._waiting: deque[_Waiting] = deque()
        self._arrival = asyncio.Event()

    @property
    def length(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    async def score(self, request: ScoreRequest) -> ScoreReply:
        """The reply to a request. Raises HttpError: 429 when the queue is full, 503 and 504 as the runner."""
        if self.runner.state is not State.READY:
            raise not_ready(self.route, self.runner.state)
        if len(self._waiting) >= self._limit:
            raise HttpError(
                429,
                f"{self._limit} requests wait for reward {self.route!r} already.",
                fix="ask again later, or send fewer requests at a time.",
                headers={"Retry-After": str(RETRY_AFTER)},
            )
        loop = asyncio.get_running_loop()
        waiting = _Waiting(request, loop.create_future(), loop.time())
        self._waiting.append(waiting)
        self._arrival.set()
        return await waiting.reply

    async def run(self) -> None:
        """Call the reward with what waits, for ever. While it is not ready, what waits is answered with 503."""
        while True:
            batch = await self._next_batch()
            if batch and self.runner.state is State.READY:
                await self._call(batch)
            else:
                _fail(batch, not_ready(self.route, self.runner.state))
            if self.runner.state is not State.READY:
                _fail(self._waiting, not_ready(self.route, self.runner.state))
                self._waiting.clear()

    async def _next_batch(self) -> list[_Waiting]:
        """The oldest request with those that can join it, once they are enough or it has waited long enough."""
        while not self._waiting:
            self._arrival.clear()
            await self._arrival.wait()
        if self._joins():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._waiting[0].arrived + self._batching.wait_ms / 1000):
                    while self._completions_waiting() < self._batching.max_batch:
                        self._arrival.clear()
                        await self._arrival.wait()
        return self._take()

    def _joins(self) -> bool:
        return not self.runner.logs and self._batching.max_batch > 1

    def _completions_waiting(self) -> int:
        return sum(waiting.size for waiting in self._waiting)

    def _take(self) -> list[_Waiting]:
        """Remove the next batch from the queue, without requests whose clients are gone."""
        batch: list[_Waiting] = []
        others: deque[_Waiting] = deque()
        size = 0
        for waiting in self._waiting:
            joins = not batch or (
                self._joins()
                and waiting.columns == batch[0].columns
                and size + waiting.size <= self._batching.max_batch
            )
            if waiting.reply.done():
                continue
            if joins:
                batch.append(waiting)
                size += waiting.size
            else:
                others.append(waiting)
        self._waiting = others
        return batch

    async def _call(self, batch: list[_Waiting]) -> None:
        counts = [waiting.size for waiting in batch]
        start = time.perf_counter()
        try:
            reply = await self.runner.score(join([waiting.request for waiting in batch]))
        except HttpError as error:
            return _fail(batch, error)
        except MotetError as error:
            return _fail(batch, HttpError(500, error.problem, fix=error.fix))
        self._metrics.calls.add(time.perf_counter() - start, reward=self.route)
        self._metrics.batches.add(float(sum(counts)), reward=self.route)
        outcomes = Counter(
            "error" if error is not None else "none" if value is None else "value"
            for value, error in zip(reply.values, reply.errors, strict=True)
        )
        for outcome, count in outcomes.items():
            self._metrics.completions.add(count, reward=self.route, outcome=outcome)
        for waiting, part in zip(batch, split(reply, counts), strict=True):
            if not waiting.reply.done():
                waiting.reply.set_result(part)


def _fail(waiting: list[_Waiting] | deque[_Waiting], error: HttpError) -> None:
    for one in waiting:
        if not one.reply.done():
            one.reply.set_exception(error)
