"""A reward in a process of its own: `python -m motet.serving.rewards_worker`, started by `rewards_runner.py`.

It reads frames from standard input and writes frames to standard output: four bytes of length, big-endian, then JSON.
The first frame it reads is a ServedReward; its answer is a Hello. Every further one is a ScoreRequest, answered by a
ScoreReply. What the reward prints goes to standard error. The process ends with its input.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from typing import BinaryIO

from pydantic import BaseModel

from motet.core.errors import MotetError
from motet.core.registry import first_line
from motet.rewards.remote.protocol import Error, ScoreRequest, ServedRewardInfo
from motet.serving.rewards_config import ServedReward
from motet.serving.rewards_loading import load_models, resolve_served
from motet.serving.rewards_scoring import score

HEADER = 4
"""Bytes of a frame's length."""


class Hello(BaseModel):
    """What a worker says first: which reward it has, or why it has none."""

    info: ServedRewardInfo | None = None
    logs: bool = False
    error: Error | None = None


def frame(message: BaseModel) -> bytes:
    """A message as a frame."""
    body = message.model_dump_json().encode()
    return len(body).to_bytes(HEADER, "big") + body


def read_frame(stream: BinaryIO) -> bytes | None:
    """The body of the next frame; None at the end of the input."""
    header = stream.read(HEADER)
    if len(header) < HEADER:
        return None
    size = int.from_bytes(header, "big")
    body = stream.read(size)
    return body if len(body) == size else None


def main() -> None:
    """Answer frames until the input ends."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a reward that prints must not write into the frames
    sys.stdout = sys.stderr
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
    bodies: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(bodies,), daemon=True).start()

    def send(message: BaseModel) -> None:
        replies.write(frame(message))
        replies.flush()

    served = ServedReward.model_validate_json(bodies.get())
    try:
        loaded = resolve_served(served)
        load_models(loaded, served.device)
    except MotetError as error:
        send(Hello(error=Error(problem=error.problem, fix=error.fix)))
        return
    except (Exception, SystemExit) as error:
        problem = f"Reward {served.name!r} cannot be loaded: {first_line(error)}."
        send(Hello(error=Error(problem=problem, fix="correct its options.")))
        return
    send(Hello(info=loaded.info, logs=loaded.logs))
    while True:
        send(score(loaded, ScoreRequest.model_validate_json(bodies.get())))


def _read(bodies: queue.SimpleQueue[bytes]) -> None:
    """Hand over the frames; end the process at once with the server, even while the reward hangs."""
    while (body := read_frame(sys.stdin.buffer)) is not None:
        bodies.put(body)
    os._exit(0)


if __name__ == "__main__":
    main()
