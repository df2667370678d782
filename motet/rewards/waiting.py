"""Waiting for slow work in a way that Ctrl-C and time limits can end: the work runs on daemon threads.

A pool of `concurrent.futures` waits for its threads when it is left, and Python waits for them again at its exit.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Late(TimeoutError):
    """The work took longer than its limit."""


def on_thread(call: Callable[[], T], limit: float | None = None) -> T:
    """What `call` returns or raises, on a thread of its own.

    Raises Late after `limit` seconds; Python cannot end a thread, so the work continues, and its result is ignored.
    """
    (result,) = on_threads(lambda _: call(), [None], 1, limit)
    return result


def on_threads(call: Callable[[U], T], items: Iterable[U], threads: int, limit: float | None = None) -> list[T]:
    """`call` of every item, in order, on at most so many threads; what the first to fail raised.

    Raises Late when no item is done for `limit` seconds. After any error no further item is begun.
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
            except BaseException as error:  # raised again where it is waited for
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
        raise Late from None
    finally:
        waiting.clear()
    return [results[number] for number in range(count)]
