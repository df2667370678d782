"""One policy for many requests: jobs wait in a queue, and one thread performs them.

Jobs of one kind of act with equal sampling are performed together. Noise is keyed by each job's own seed, so a reply
does not depend on what it is batched with, up to rounding.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from motet.core.errors import MotetError
from motet.core.protocols import Policy, Request
from motet.core.registry import first_line
from motet.core.sampling import Sampling
from motet.core.trajectory import Act
from motet.policies.generation.token_listener import listen_to_tokens
from motet.report.terminal import say
from motet.serving.http import HttpError


@dataclass(eq=False)
class Job:
    """The acts of one request, of one kind. `on_tokens(k, ids)` hears of the k-th act while it is generated.

    `abandoned`: nobody waits for it any more.
    """

    requests: Sequence[Request]
    sampling: Sampling
    on_tokens: Callable[[int, Tensor], None] | None = None
    future: Future[list[Act]] = field(default_factory=Future)
    abandoned: bool = False

    @property
    def batch_key(self) -> tuple[str, Sampling]:
        """Jobs with equal keys can be performed together."""
        return self.requests[0].kind, self.sampling


class _Abandoned(Exception):
    """Nobody waits for this batch."""


class GenerationQueue:
    """Performs jobs on a thread of its own, up to `max_batch` acts at once; `max_waiting` jobs may wait."""

    def __init__(self, policy: Policy, *, max_batch: int, max_waiting: int) -> None:
        self.policy, self.max_batch, self.max_waiting = policy, max_batch, max_waiting
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="generation", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return sum(not job.abandoned for job in tuple(self._waiting))

    @property
    def running(self) -> bool:
        """Whether jobs are performed."""
        return self._thread.is_alive() and not self._stopping

    def submit(self, job: Job) -> Job:
        """Put a job into the queue. Raises HttpError where the queue is full or stopped."""
        with self._changed:
            if self._stopping:
                raise _stopping()
            if len(self) >= self.max_waiting:
                raise HttpError(
                    429,
                    f"{self.max_waiting} requests are waiting already.",
                    fix="try again later.",
                    code="queue_full",
                    headers={"Retry-After": "1"},
                )
            self._waiting.append(job)
            self._changed.notify()
        return job

    def stop(self, timeout: float = 5.0) -> None:
        """End: what is being generated stops at its next token, and every job that waits fails."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout)
        while self._waiting:
            self._waiting.popleft().future.set_exception(_stopping())

    def _run(self) -> None:
        while batch := self._next_batch():
            self._perform(batch)

    def _next_batch(self) -> list[Job]:
        """The job that has waited longest, and others that can be performed with it. Empty at the end."""
        with self._changed:
            while not self._waiting or self._stopping:
                if self._stopping:
                    return []
                self._changed.wait()
            batch, left, kept = [self._waiting.popleft()], self.max_batch, deque[Job]()
            left -= len(batch[0].requests)
            while self._waiting:
                job = self._waiting.popleft()
                fits = job.batch_key == batch[0].batch_key and len(job.requests) <= left
                (batch if fits else kept).append(job)
                left -= len(job.requests) if fits else 0
            self._waiting = kept
            return batch

    def _perform(self, batch: Sequence[Job]) -> None:
        owners = [(job, place) for job in batch for place in range(len(job.requests))]

        def check() -> None:
            if self._stopping or all(job.abandoned for job in batch):
                raise _Abandoned

        def on_tokens(sequence: int, ids: Tensor) -> None:
            check()
            job, place = owners[sequence]
            if job.on_tokens is not None:
                job.on_tokens(place, ids)

        try:
            if all(job.abandoned for job in batch):
                raise _Abandoned
            with listen_to_tokens(on_tokens, check):
                acts = iter(self.policy.act([request for job in batch for request in job.requests], batch[0].sampling))
            for job in batch:
                job.future.set_result([next(acts) for _ in job.requests])
        except _Abandoned:
            for job in batch:
                job.future.set_exception(_stopping())
        except Exception as error:  # of the policy, whatever it is
            if len(batch) == 1:
                batch[0].future.set_exception(as_http_error(error))
                return
            for job in batch:  # one of them may be at fault
                self._perform([job])


def as_http_error(error: Exception) -> HttpError:
    """What a client is told of an error: what it can correct is 400, else 500."""
    if isinstance(error, HttpError):
        return error
    if not isinstance(error, MotetError):
        say(f"motet serve: the policy failed: {first_line(error)}", error=True)
        return HttpError(500, "The policy failed.", fix="see the server's output.")
    names: dict[str, tuple[int, str | None]] = {
        "ContextError": (400, "context_length_exceeded"),
        "DataError": (400, "invalid_value"),
        "ConfigError": (400, "invalid_value"),
    }
    status, code = names.get(type(error).__name__, (500, None))
    return HttpError(status, error.problem, fix=error.fix, code=code)


def _stopping() -> HttpError:
    return HttpError(503, "The server is stopping.", fix="try again once it runs.", headers={"Retry-After": "5"})


def act_requests(kind: str, context: Any, n: int, seed: int) -> list[Request]:
    """`n` acts of one context, with the noise that `generate_text` and `generate_images` give to that seed."""
    return [Request(kind, kind, context, (seed, 0, g)) for g in range(n)]
