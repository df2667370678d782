"""The report as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from motet.preflight.findings import Finding, PreflightReport


def report_table(report: PreflightReport) -> Table:
    """One row for each finding, and one for each check without any."""
    table = _empty_table(show_lines=False)
    for result in report.results:
        for one in result.findings:
            _add(table, result.name, one)
        if not result.findings:
            said = f"{result.meaning}{f' (not applicable: {result.note})' if result.note else ''}"
            table.add_row(result.name, result.outcome.replace("not applicable", "-"), said)
    return table


def warnings_table(report: PreflightReport) -> Table:
    """One row for each finding of level `warn`: the error that stops a run tells the others."""
    table = _empty_table(show_lines=True)
    for name, one in report.findings("warn"):
        _add(table, name, one)
    return table


def _empty_table(*, show_lines: bool) -> Table:
    table = Table(title="Preflight", title_justify="left", show_lines=show_lines)
    table.add_column("check", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("", overflow="fold")
    return table


def _add(table: Table, name: str, one: Finding) -> None:
    table.add_row(name, one.level, f"{one.problem}\nCause: {one.cause}.\nFix: {one.fix}")
