"""What `check_policy` found: one result per clause of the contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Violation:
    """One thing that a policy does wrong: `problem` with the values found, `fix` in the imperative."""

    problem: str
    fix: str

    def __str__(self) -> str:
        return f"{self.problem} Fix: {self.fix}"


@dataclass(frozen=True)
class ClauseResult:
    """How a policy did on one clause. `note` says what was checked, or why nothing was."""

    clause: str
    outcome: Literal["holds", "violated", "not checked"]
    note: str = ""
    violations: tuple[Violation, ...] = ()


@dataclass(frozen=True)
class PolicyReport:
    """The results of all clauses, in the order in which they were checked."""

    policy: str
    results: tuple[ClauseResult, ...]

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Of all clauses."""
        return tuple(violation for result in self.results for violation in result.violations)

    def clauses(self, outcome: Literal["holds", "violated", "not checked"]) -> tuple[str, ...]:
        """The names of the clauses with an outcome."""
        return tuple(result.clause for result in self.results if result.outcome == outcome)

    def __str__(self) -> str:
        """A line for every clause, below it what is violated."""
        return "\n".join([f"{self.policy}:", *_lines(self.results)])


class PolicyContractError(AssertionError):
    """A policy violates clauses of the contract; `report` has all results."""

    def __init__(self, report: PolicyReport) -> None:
        violated = [result for result in report.results if result.outcome == "violated"]
        listed = "\n".join(_lines(violated))
        super().__init__(f"{report.policy} violates {len(violated)} of {len(report.results)} clauses:\n{listed}")
        self.report = report


def _lines(results: Sequence[ClauseResult]) -> list[str]:
    lines: list[str] = []
    for result in results:
        lines.append(f"  {result.outcome:<11}  {result.clause}{': ' if result.note else ''}{result.note}")
        lines += [f"{'':15}- {violation}" for violation in result.violations]
    return lines
