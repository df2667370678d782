"""Validation of a reward's options, so that a recipe with an invalid one is rejected before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, NoReturn

from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean


def raise_option_error(reward: str, option: str, value: Any, problem: str, *, fix: str) -> NoReturn:
    """Raise ConfigError: `rewards.options.OPTION=VALUE of REWARD PROBLEM.`"""
    raise ConfigError(f"rewards.options.{option}={value!r} of {reward!r} {problem}.", fix=fix)


def check_choice(reward: str, option: str, value: Any, known: Collection[str]) -> None:
    """Raise ConfigError unless `value` is one of the known names."""
    if not isinstance(value, str) or value not in known:
        hint = did_you_mean(value, known) if isinstance(value, str) else ""
        raise_option_error(
            reward, option, value, f"must be one of {', '.join(known)}", fix=f"choose one of them.{hint}"
        )


def check_number(reward: str, option: str, value: Any, low: float = 0.0, high: float | None = None) -> None:
    """Raise ConfigError unless `value` is a finite number of at least `low` and at most `high`."""
    real = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not real or value < low or (high is not None and value > high):
        expected = f">= {low:g}" if high is None else f"in [{low:g}, {high:g}]"
        raise_option_error(reward, option, value, f"must be a number {expected}", fix="correct the number.")


def check_int(reward: str, option: str, value: Any, low: int = 1) -> None:
    """Raise ConfigError unless `value` is an integer of at least `low`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise_option_error(reward, option, value, f"is not a whole number of at least {low}", fix="correct the number.")


def check_bool(reward: str, option: str, value: Any) -> None:
    """Raise ConfigError unless `value` is true or false."""
    if not isinstance(value, bool):
        raise_option_error(reward, option, value, "must be true or false", fix="use true or false.")


def check_non_empty(reward: str, option: str, value: Any, what: str) -> None:
    """Raise ConfigError unless `value` is a non-empty string; `what` describes it."""
    if not isinstance(value, str) or not value.strip():
        raise_option_error(reward, option, value, f"is not a {what}", fix=f"set rewards.options.{option} to a {what}.")
