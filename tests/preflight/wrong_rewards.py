"""Rewards with faults, as a user would write them."""

import math
import random
import time
from typing import Any

import numpy as np
import torch


def infinite(completions: list[Any], **columns: Any) -> list[float]:
    """Divides by what is 0."""
    return [math.inf] * len(completions)


def sometimes_nan(completions: list[Any], **columns: Any) -> list[float]:
    """NaN for every other completion."""
    return [math.nan if n % 2 else float(n) for n in range(len(completions))]


def distance(completions: list[Any], answer: list[str], **columns: Any) -> list[float]:
    """How many characters differ from the answer: less is better."""
    texts = [completion[0]["content"] for completion in completions]
    return [float(gold not in text) for text, gold in zip(texts, answer, strict=True)]


def hangs(completions: list[Any], **columns: Any) -> list[float]:
    """Waits for something that never comes."""
    time.sleep(1.0)
    return [0.0] * len(completions)


def draws(completions: list[Any], **columns: Any) -> list[float]:
    """Uses the global generators, as some rewards of users do."""
    return [random.random() + float(np.random.rand()) + float(torch.rand(())) for _ in completions]
