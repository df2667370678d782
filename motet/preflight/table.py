"""The report as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from motet.preflight.findings import PreflightReport


def report_table(report: PreflightReport, *, only_findings: bool) -> Table:
    """One row for each finding, and unless `only_findings` one for each check without any."""
    table = Table(title="Preflight", title_justify="left", show_lines=only_findings)
    table.add_column("check", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("", overflow="fold")
    for result in report.results:
        for one in result.findings:
            text = f"{one.problem}\nCause: {one.cause}.\nFix: {one.fix}"
            table.add_row(result.name, one.level, text)
        if not result.findings and not only_findings:
            said = f"{result.meaning}{f' (not applicable: {result.note})' if result.note else ''}"
            table.add_row(result.name, result.outcome.replace("not applicable", "-"), said)
    return table
