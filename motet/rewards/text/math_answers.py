"""Answers that are mathematical expressions, compared by value: the reward `math_verify`.

math-verify limits its time by SIGALRM, which works only in the main thread and cannot stop a computation inside C. So
the comparison runs in a worker process that can be killed from any thread.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from motet.core.errors import ConfigError, RewardError
from motet.rewards.base import ModelReward, reward
from motet.rewards.info import BINARY, RewardInfo
from motet.rewards.options import check_bool, check_number
from motet.rewards.text.answer_parsing import same_answer
from motet.rewards.text.exact_match import RewardValues, answer_of
from motet.rewards.text.gold_check import gold_texts

MEGABYTES = 4096
"""Memory limit of the worker process, in megabytes."""


@reward(
    "math_verify",
    info=RewardInfo(
        range=BINARY, model="math-verify (no weights)", license="Apache-2.0", runs="CPU, worker process", extra="math"
    ),
)
@dataclass(eq=False, kw_only=True)
class MathVerify(ModelReward):
    r"""Whether the answer is the gold answer as a mathematical expression: `\frac{1}{2}`, `1/2` and `0.5` are equal.

    By the package math-verify, which TRL's `accuracy_reward` uses too: of a text it reads the last expression, or the
    boxed ones. Texts that are equal in normal form are equal (`open_ended`), so a gold answer may be any text.
    `answer_tags` False: the whole completion is read, not its `<answer>` block. A comparison that takes more than
    `timeout` seconds counts as not equal.
    """

    name: ClassVar[str] = "math_verify"

    answer_tags: Any = True
    timeout: Any = 10.0
    _comparer: Comparer = field(init=False)

    def __post_init__(self) -> None:
        check_bool(self.name, "answer_tags", self.answer_tags)
        check_number(self.name, "timeout", self.timeout, 0.1)
        if find_spec("math_verify") is None:
            raise ConfigError(
                "rewards.name='math_verify' needs the package math-verify.", fix="pip install 'motet[math]'."
            )
        self._comparer = Comparer(float(self.timeout))

    def __call__(self, completions: list[Any], answer: list[Any]) -> RewardValues:
        """1 or 0 per completion; None where there is no gold answer."""
        values: RewardValues = []
        for completion, gold in zip(completions, answer, strict=True):
            if gold is None or not completion:
                values.append(None)
                continue
            said, golds = answer_of(completion, self.answer_tags, self.name), gold_texts(gold)
            values.append(float(said is not None and any(self._same(said, right) for right in golds)))
        return values

    def check_row(self, row: Mapping[str, Any]) -> None:
        if row.get("answer") is not None:
            gold_texts(row["answer"])

    def _same(self, said: str, right: str) -> bool:
        return same_answer(said, right) or self._comparer(right, said)


class Comparer:
    """`(gold, answer) -> bool` by a process that is kept between calls, and restarted when it takes too long."""

    def __init__(self, timeout: float, command: Sequence[str] | None = None) -> None:
        worker = Path(__file__).with_name("math_worker.py")
        limits = [str(MEGABYTES), str(2 * timeout)]
        self.timeout, self.command = timeout, command or [sys.executable, "-P", str(worker), *limits]
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def __call__(self, gold: str, answer: str) -> bool:
        """Raises RewardError when the process cannot start."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            reply = self._ask(gold, answer)
        return reply is not None and json.loads(reply)["equal"]

    def _start(self) -> None:
        self._process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        weakref.finalize(self, _stop, self._process)
        if self._ask("1", "1", 60.0 + self.timeout) is None:  # imports take seconds
            raise RewardError(
                "Reward 'math_verify' cannot start its worker process.", fix="try `python -c 'import math_verify'`."
            )

    def _ask(self, gold: str, answer: str, timeout: float | None = None) -> str | None:
        """The reply, None when it does not come in time: the process is then stopped."""
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        stop = threading.Timer(timeout or self.timeout, process.kill)
        stop.daemon = True
        stop.start()
        try:
            process.stdin.write(json.dumps({"gold": gold, "answer": answer}) + "\n")
            process.stdin.flush()
            reply = process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        finally:
            stop.cancel()
        if not reply.endswith("\n"):
            _stop(process)
            return None
        return reply


def _stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
