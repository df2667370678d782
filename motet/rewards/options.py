"""Checks of a reward's options, so that a recipe with a wrong one is refused before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, NoReturn

from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean


def refuse(reward: str, option: str, value: Any, problem: str, *, fix: str) -> NoReturn:
    """Raise ConfigError: `rewards.options.OPTION=VALUE of REWARD PROBLEM.`"""
    raise ConfigError(f"rewards.options.{option}={value!r} of {reward!r} {problem}.", fix=fix)


def one_of(reward: str, option: str, value: Any, known: Collection[str]) -> None:
    """`value` is one of the known names."""
    if not isinstance(value, str) or value not in known:
        hint = did_you_mean(value, known) if isinstance(value, str) else ""
        refuse(reward, option, value, f"is none of {', '.join(known)}", fix=f"choose one of them.{hint}")


def number(reward: str, option: str, value: Any, low: float = 0.0, high: float | None = None) -> None:
    """`value` is a finite number of at least `low` and at most `high`."""
    real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not real or value < low or (high is not None and value > high):
        expected = f"of at least {low:g}" if high is None else f"in [{low:g}, {high:g}]"
        refuse(reward, option, value, f"is no number {expected}", fix="correct the number.")


def whole(reward: str, option: str, value: Any, low: int = 1) -> None:
    """`value` is an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        refuse(reward, option, value, f"is no whole number of at least {low}", fix="correct the number.")


def boolean(reward: str, option: str, value: Any) -> None:
    """`value` is true or false."""
    if not isinstance(value, bool):
        refuse(reward, option, value, "is no boolean", fix="use true or false.")


def filled(reward: str, option: str, value: Any, what: str) -> None:
    """`value` is a string that is not empty."""
    if not isinstance(value, str) or not value.strip():
        refuse(reward, option, value, f"is no {what}", fix=f"set rewards.options.{option} to a {what}.")
