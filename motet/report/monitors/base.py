"""What monitors share: bounds, relative to the first values of the run or absolute, and what happens beyond them."""

from __future__ import annotations

import json
import math
import statistics
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from motet.config import Recipe
from motet.core.atomic_files import append, write_atomic
from motet.core.errors import ConfigError
from motet.core.registry import did_you_mean
from motet.report.callbacks import Callback, Metrics, StopTraining
from motet.report.run_dir import METRICS, WARNINGS

MONITORS = "monitors.json"
"""File of a run folder with what monitors measured first."""
LIMITS = ("min", "max", "min_ratio", "max_ratio")


def option_error(monitor: str, option: str, value: Any, expected: str) -> ConfigError:
    """The error of an invalid option."""
    return ConfigError(
        f"run.callbacks: option {option}={value!r} of {monitor!r} must be {expected}.", fix="correct it."
    )


def check_count(monitor: str, option: str, value: Any) -> None:
    """Raise ConfigError unless the value is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise option_error(monitor, option, value, "an integer of at least 1")


@dataclass(frozen=True)
class Bound:
    """Limits of a value: absolute ones, and ratios of its baseline, the mean of the run's first values."""

    min: float | None = None
    max: float | None = None
    min_ratio: float | None = None
    max_ratio: float | None = None

    @classmethod
    def of(cls, monitor: str, given: Any, option: str = "") -> Bound:
        """From options of a recipe. Raises ConfigError for unknown limits, for none, and for what is not a number."""
        if not isinstance(given, Mapping):
            raise option_error(monitor, option, given, f"a mapping with one or more of {', '.join(LIMITS)}")
        limits = {str(name): value for name, value in given.items() if value is not None}
        for name, value in limits.items():
            if name not in LIMITS:
                expected = f"one of {', '.join(LIMITS)}.{did_you_mean(name, LIMITS)}"
                raise option_error(monitor, option or "limit", name, expected.rstrip("."))
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise option_error(monitor, f"{option}.{name}".strip("."), value, "a finite number")
        if not limits:
            raise ConfigError(
                f"run.callbacks: {monitor!r} has no limit{f' in {option}' if option else ''}.",
                fix=f"set one or more of {', '.join(LIMITS)}.",
            )
        return cls(**{name: float(value) for name, value in limits.items()})

    @property
    def is_relative(self) -> bool:
        """Whether it needs a baseline."""
        return self.min_ratio is not None or self.max_ratio is not None

    def violation(self, value: float, baseline: float | None) -> str | None:
        """What limit the value is beyond, in words; None if it is within all of them. NaN is beyond any."""
        if self.min is not None and not value >= self.min:
            return f"below {self.min:.4g}"
        if self.max is not None and not value <= self.max:
            return f"above {self.max:.4g}"
        if baseline is None:
            return None
        if self.min_ratio is not None and not value >= self.min_ratio * baseline:
            return f"below {self.min_ratio:g} times its value at the start, {baseline:.4g}"
        if self.max_ratio is not None and not value <= self.max_ratio * baseline:
            return f"above {self.max_ratio:g} times its value at the start, {baseline:.4g}"
        return None


class Monitor(Callback):
    """A callback that checks values.

    After `patience` checks in a row beyond a limit it warns (`action: warn`, also in `warnings.jsonl`; again only after
    the value came back), or ends the run after the step (`stop`). The baseline of ratios is the mean of the first
    `baseline` values of the run, those before a resume included.
    """

    name: ClassVar[str]

    def __init__(self, action: str, patience: int, baseline: int) -> None:
        if action not in ("warn", "stop"):
            raise option_error(self.name, "action", action, "warn or stop")
        check_count(self.name, "patience", patience)
        check_count(self.name, "baseline", baseline)
        self.action, self.patience, self.baseline = action, patience, baseline
        self._folder: Path | None = None
        self._values: dict[str, dict[int, float]] = {}
        self._beyond: dict[str, int] = {}
        self._stop: StopTraining | None = None

    def on_run_start(self, recipe: Recipe, folder: Path) -> None:
        """Read the values so far of a resumed run."""
        self._folder = folder
        path = folder / METRICS
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                values = json.loads(line)
            except json.JSONDecodeError:  # an incomplete last line
                continue
            for metric, value in values.items():
                if isinstance(value, int | float):
                    self._values.setdefault(metric, {})[int(values["step"]) + 1] = float(value)
        for metric, value in _read(folder).items():
            self._values.setdefault(metric, {})[0] = value

    def state_dict(self) -> dict[str, Any]:
        """How many checks in a row were beyond a limit; values are read from the run's metrics."""
        return {"beyond": dict(self._beyond)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._beyond = dict(state["beyond"])

    def on_step_end(self, step: int, metrics: Metrics) -> None:
        """Raises StopTraining if a check of the step ends the run."""
        if self._stop is not None:
            raise self._stop

    def check(self, step: int, metric: str, value: float, bound: Bound, fix: str) -> None:
        """Compare a value after `step` steps: the run is stopped at the end of the step, whose metrics are written."""
        known = self._values.setdefault(metric, {})
        known[step] = value
        if step == 0:
            self._keep(metric, value)
        first = [known[n] for n in sorted(known)][: self.baseline]
        baseline = statistics.fmean(first) if len(first) == self.baseline else None
        violation = bound.violation(value, baseline)
        problem = None if violation is None else f"{metric} is {value:.4g} after step {step}, {violation}"
        self.act(step, metric, problem, fix)

    def start(self, step: int, metric: str, value: float) -> float:
        """The value of `metric` at the first check of the run, those before a resume included: this one, if it is that.

        It is kept in the run folder, for metrics that `metrics.jsonl` does not have.
        """
        known = self._values.setdefault(metric, {})
        if not known:
            self._keep(metric, value)
            known[step] = value
        return known[min(known)]

    def act(self, step: int, about: str, problem: str | None, fix: str) -> None:
        """Count checks in a row with a problem, and warn or stop after `patience` of them."""
        self._beyond[about] = self._beyond.get(about, 0) + 1 if problem is not None else 0
        if problem is None or self._beyond[about] < self.patience:
            return
        times = f" in {self.patience} checks in a row" if self.patience > 1 else ""
        message = f"Monitor {self.name!r}: {problem}{times}."
        if self.action == "stop":
            self._stop = StopTraining(message, fix=fix)
            return
        if self._beyond[about] == self.patience:
            if self._folder is not None:
                line = {"step": step - 1, "message": message}
                append(self._folder / WARNINGS, (json.dumps(line) + "\n").encode("utf-8"))
            warnings.warn(f"{message} {fix[0].upper()}{fix[1:]}", stacklevel=2)

    def _keep(self, metric: str, value: float) -> None:
        if self._folder is not None:
            write_atomic(
                self._folder / MONITORS,
                (json.dumps({**_read(self._folder), metric: value}, indent=2, ensure_ascii=False) + "\n").encode(
                    "utf-8"
                ),
            )


def _read(folder: Path) -> dict[str, float]:
    path = folder / MONITORS
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
