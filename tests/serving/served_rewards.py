"""Rewards that tests serve: what a completion says decides what happens to it."""

import asyncio
import os
import threading
import time

CALLS: list[int] = []
"""Completions of every call of `by_text`."""
RELEASE = threading.Event()
"""Ends `by_text`'s hanging calls."""


def by_text(prompts, completions, **columns):
    """The length of the text; "raise", "nan", "none", "hang" and "die" do what they say."""
    CALLS.append(len(completions))
    return [_value(completion[0]["content"]) for completion in completions]


def _value(text):
    if text == "raise":
        raise ValueError("it says so\nand more")
    if text == "hang":
        RELEASE.wait(60)
    if text == "die":
        os._exit(3)
    return {"nan": float("nan"), "none": None}.get(text, float(len(text)))


def slow(completions, gold=None):
    """The number of completions of the call, after a while."""
    time.sleep(0.05)
    return [float(len(completions))] * len(completions)


async def later(completions, gold):
    """The length of the gold text."""
    await asyncio.sleep(0)
    return [float(len(text)) for text in gold]


def logging(completions, log_metric, log_extra):
    """Logs the number of completions."""
    log_metric("count", len(completions))
    log_extra("place", list(range(len(completions))))
    return [0.0] * len(completions)


def short(completions):
    """Returns a value too few."""
    return [1.0] * (len(completions) - 1)


def with_policy(completions, policy):
    """Cannot be served."""
    return [0.0] * len(completions)


def with_state(completions, trainer_state):
    """Cannot be served."""
    return [0.0] * len(completions)
