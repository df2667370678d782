"""What the checks find, and the report on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from motet.core.errors import PreflightError
from motet.core.printable import plural

Level = Literal["stop", "warn"]
Training = Literal["rl", "sft"]


@dataclass(frozen=True)
class Finding:
    """A fault: what is wrong, its likely cause and how to fix it. A run does not start with one of level `stop`."""

    level: Level
    problem: str
    cause: str
    fix: str


def stop(problem: str, *, cause: str, fix: str) -> Finding:
    """A fault that makes the run useless or wrong."""
    return Finding("stop", problem, cause, fix)


def warn(problem: str, *, cause: str, fix: str) -> Finding:
    """What may be meant, but often is not."""
    return Finding("warn", problem, cause, fix)


class NotApplicable(Exception):
    """Raised by a check that has nothing to check in this run; the message says why."""


@dataclass(frozen=True)
class CheckResult:
    """What came of a check. `note` says why it does not apply."""

    name: str
    meaning: str
    findings: tuple[Finding, ...] = ()
    note: str = ""

    @property
    def outcome(self) -> Literal["ok", "stop", "warn", "not applicable"]:
        """The gravest of its findings."""
        levels = {finding.level for finding in self.findings}
        return "stop" if "stop" in levels else "warn" if levels else "not applicable" if self.note else "ok"


@dataclass(frozen=True)
class PreflightReport:
    """The results of all checks, how long they took, and what a stage of the tiny step raised, if it did."""

    results: tuple[CheckResult, ...]
    seconds: float
    error: Exception | None = None

    def with_outcome(self, outcome: str) -> list[CheckResult]:
        """The results of one outcome."""
        return [result for result in self.results if result.outcome == outcome]

    def findings(self, level: Level) -> list[tuple[str, Finding]]:
        """The findings of a level, each with the name of its check."""
        return [(result.name, one) for result in self.results for one in result.findings if one.level == level]

    @property
    def line(self) -> str:
        """The report in one line."""
        passed, stopped, warned = (len(self.with_outcome(name)) for name in ("ok", "stop", "warn"))
        faults = [f"{count} {what}" for count, what in ((stopped, "stopped"), (warned, "warned")) if count]
        return ", ".join([f"preflight: {plural(passed, 'check')} passed", *faults]) + f" in {self.seconds:.1f} s"

    def raise_if_stopped(self) -> None:
        """Raise PreflightError, which names every finding of level `stop` with its cause and fix."""
        if found := self.findings("stop"):
            problems = "; ".join(f"[{name}] {one.problem.rstrip('.')} ({one.cause.rstrip('.')})" for name, one in found)
            fixes = " ".join(f"[{name}] {one.fix.rstrip('.')}." for name, one in found)
            raise PreflightError(
                f"The checks before the first step found {plural(len(found), 'fault')}: {problems}.",
                fix=f"{fixes} Or start without the checks: --skip-preflight.",
            ) from self.error


@dataclass(frozen=True)
class Check:
    """A named check: a function of the probe that yields findings, or raises NotApplicable; `of`: of which training."""

    name: str
    meaning: str
    function: Callable[[Any], Iterable[Finding]]
    of: tuple[Training, ...]


CHECKS: dict[str, Check] = {}
"""All checks, in the order in which they were registered."""


def check(
    name: str, *of: Training
) -> Callable[[Callable[[Any], Iterable[Finding]]], Callable[[Any], Iterable[Finding]]]:
    """Register a check of these kinds of training, by default of both.

    The first line of its docstring says what must hold.
    """

    def register(function: Callable[[Any], Iterable[Finding]]) -> Callable[[Any], Iterable[Finding]]:
        meaning = (function.__doc__ or "").strip().split("\n")[0].rstrip(".")
        CHECKS[name] = Check(name, meaning, function, of or ("rl", "sft"))
        return function

    return register
