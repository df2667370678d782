"""Run slow work on daemon threads, so that Ctrl-C and time limits can end the wait.

A pool of `concurrent.futures` waits for its threads at its exit, and Python waits for them again at its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class DeadlineExceeded(TimeoutError):
    """The work took longer than its limit."""


def run_on_thread(call: Callable[[], T], limit: float | None = None) -> T:
    """Run `call` on a thread of its own; returns or raises what it does.

    Raises DeadlineExceeded after `limit` seconds; Python cannot end a thread, so the work continues and its result is
    ignored.
    """
    (result,) = run_on_threads(lambda _: call(), [None], 1, limit)
    return result


def run_on_threads(call: Callable[[U], T], items: Iterable[U], threads: int, limit: float | None = None) -> list[T]:
    """The results of `call` for every item, in order, on at most `threads` threads; raises the first error.

    Raises DeadlineExceeded when no item is done for `limit` seconds. After an error no further item is started.
    """
    waiting = deque(enumerate(items))
    count = len(waiting)
    done: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()

    def work() -> None:
        while True:
            try:
                number, item = waiting.popleft()
            except IndexError:
                return
            try:
                done.put((number, call(item), None))
            except BaseException as error:  # raised in the waiting thread
                done.put((number, None, error))

    for _ in range(min(threads, count)):
        threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
    results: dict[int, T] = {}
    try:
        while len(results) < count:
            number, result, error = done.get(timeout=limit)
            if error is not None:
                raise error
            results[number] = result
    except queue.Empty:
        raise DeadlineExceeded from None
    finally:
        waiting.clear()
    return [results[number] for number in range(count)]


async def await_on_thread(call: Callable[[], T]) -> T:
    """The result of `call` on a daemon thread; other coroutines run meanwhile."""
    return await future_on_thread(call)


def future_on_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """The result of `call` on a daemon thread, as a future of the running loop.

    An executor's thread would keep the process from ending.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def work() -> None:
        result, error = None, None
        try:
            result = call()
        except BaseException as raised:  # raised by the coroutine
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has ended: its wait took too long
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True).start()
    return future
