"""A worker process that answers messages one by one: its two sides.

Messages are frames over the worker's standard input and output: four bytes of length, big-endian, and a body. Nothing
is unpickled. The worker is killed when an answer takes too long, with all that it started, and ends with its input.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, NoReturn

from motet.rewards.waiting import DeadlineExceeded

_HEADER = 4


class WorkerProcess:
    """A started worker. Raises OSError if the program cannot be started."""

    def __init__(self, command: Sequence[str]) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True)

    def exchange(self, body: bytes, limit: float | None) -> bytes:
        """The answer to a message.

        Raises DeadlineExceeded after `limit` seconds and EOFError when the worker ended; it is closed then.
        """
        process, late = self._process, threading.Event()
        assert process.stdin is not None and process.stdout is not None

        def stop() -> None:
            late.set()
            self._end()

        timer = None if limit is None else threading.Timer(limit, stop)
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            _write(process.stdin, body)
            return _read(process.stdout)
        except (OSError, EOFError, ValueError):
            self.close()
            raise (DeadlineExceeded if late.is_set() else EOFError) from None
        finally:
            if timer is not None:
                timer.cancel()

    def wait(self) -> int:
        """Wait for its end; returns its exit status."""
        return self._process.wait()

    def close(self) -> int:
        """End it with whatever it started, and close its pipes; returns its exit status."""
        self._end()
        status = self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError, ValueError):
                assert stream is not None
                stream.close()
        return status

    def _end(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)


def answer_messages(answer: Callable[[bytes], bytes]) -> NoReturn:
    """The worker's side: answer every message, until the input ends. What is printed goes to standard error."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a reward prints must not be between the frames
    sys.stdout = sys.stderr
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that started this one, and ends it
    bodies: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(bodies,), daemon=True).start()
    while True:
        _write(replies, answer(bodies.get()))


def _receive(bodies: queue.SimpleQueue[bytes]) -> None:
    """Hand over the messages; end the process at once with its input, even while an answer hangs."""
    while True:
        try:
            bodies.put(_read(sys.stdin.buffer))
        except EOFError:
            os._exit(0)


def _write(stream: IO[bytes], body: bytes) -> None:
    stream.write(len(body).to_bytes(_HEADER, "big") + body)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes:
    size = int.from_bytes(stream.read(_HEADER), "big")
    body = stream.read(size)
    if not size or len(body) < size:
        raise EOFError
    return body
