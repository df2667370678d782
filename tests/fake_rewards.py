"""Reward functions of tests, as a user would write them in a file."""

import math
import os
import sys
import time
from typing import Any

from motet.rewards.failures import Unscored


def reddish(completions: list[Any], **columns: Any) -> list[float]:
    """How red the drawing's upper left corner is, which is the doing of its first token for the most part."""
    return [part(c, "image").crop((0, 0, 4, 4)).resize((1, 1)).getpixel((0, 0))[0] / 255 for c in completions]


def spacious(completions: list[Any], **columns: Any) -> list[float]:
    """The share of letters in the text."""
    texts = [part(c, "text") for c in completions]
    return [sum(mark.isalpha() for mark in text) / (len(text) + 1) for text in texts]


def flat(completions: list[Any], **columns: Any) -> list[float]:
    """Worth the same for all."""
    return [0.5] * len(completions)


def worth(completions: list[Any], value: float = 0.5, **columns: Any) -> list[float]:
    """Worth what the recipe says."""
    return [value] * len(completions)


def part(completion: list[Any], kind: str) -> Any:
    """The first picture or text of a completion."""
    for message in completion:
        content = message["content"]
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        for one in content:
            if one["type"] == kind:
                return one[kind]
    raise AssertionError(f"no {kind} in {completion}")


def slowly(completions: list[Any], **columns: Any) -> list[float]:
    """`reddish`, after as many seconds as the environment says: so that a test can interrupt a run in its middle."""
    time.sleep(float(os.environ.get("MOTET_TEST_SLEEP", "0")))
    return reddish(completions)


def briefly(completions: list[Any], **columns: Any) -> list[float]:
    """`reddish`, after a moment."""
    time.sleep(0.1)
    return reddish(completions)


def too_few(completions: list[Any], **columns: Any) -> list[float]:
    """One value short."""
    return [0.0] * (len(completions) - 1)


def broken(completions: list[Any], **columns: Any) -> list[float]:
    """Raises, as a typo would."""
    return [completion["contents"] for completion in completions]


def undefined(completions: list[Any], **columns: Any) -> list[float]:
    """NaN for everything."""
    return [math.nan] * len(completions)


def breaks_later(completions: list[Any], **columns: Any) -> list[float]:
    """Raises at its third call."""
    breaks_later.calls = getattr(breaks_later, "calls", 0) + 1  # type: ignore[attr-defined]
    if breaks_later.calls == 3:  # type: ignore[attr-defined]
        breaks_later.calls = 0  # type: ignore[attr-defined]
        raise ValueError("the scorer is gone")
    return reddish(completions)


def partial(completions: list[Any], **columns: Any) -> list[Any]:
    """`reddish`, but the first completion cannot be scored."""
    return [Unscored("the scorer has no model for it."), *reddish(completions[1:])]


def breaks_twice(completions: list[Any], **columns: Any) -> list[float]:
    """Raises at two of three calls."""
    breaks_twice.calls = getattr(breaks_twice, "calls", 0) + 1  # type: ignore[attr-defined]
    if breaks_twice.calls % 3:  # type: ignore[attr-defined]
        raise ValueError("the scorer is away")
    return reddish(completions)


def elsewhere(completions: list[Any], **columns: Any) -> list[float]:
    """1 in a process other than that of the tests."""
    return [float("pytest" not in sys.modules)] * len(completions)
