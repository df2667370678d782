"""The result tables of a recipe with stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from motet.config.plan import Plan
from motet.config.stage_files import COLUMNS
from motet.experiments.before_after import before_after_rows, before_after_table, comparisons, comparisons_table
from motet.report.report_table import ReportTable


def plan_tables(plan: Plan, summary: Mapping[str, Any]) -> list[Table | ReportTable]:
    """A table for each suite that evaluated stages, and one of the plan's comparisons."""
    tables: list[Table | ReportTable] = []
    if any(stage.recipe.eval.suite.name == "shapes" for stage in plan.stages):
        tables.append(shapes_table(plan, summary))
    if gained := before_after_rows(plan, summary):
        tables.append(before_after_table(gained))
    if compared := comparisons(plan, summary):
        tables.append(comparisons_table(compared))
    return tables


def shapes_table(plan: Plan, summary: Mapping[str, Any]) -> Table:
    """One row per entry of `plan.table`, below one row per evaluation of the starting weights.

    Accuracy at temperature 1 on validation items. A cell is empty if the plan's row has no stage for that column, or
    the stage was not evaluated.
    """
    table = Table(title="Validation items, T=1", title_justify="left")
    table.add_column("")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    starts: Mapping[str, Any] = summary["starts"]
    stages = [stage.name for stage in plan.stages if stage.recipe.eval.suite.name == "shapes"]
    measured = {**{name: summary["stages"][name].get("after") for name in stages}, **starts}
    for label, cells in {**{name: dict.fromkeys(COLUMNS, name) for name in starts}, **plan.table}.items():
        values = [cell(measured.get(cells.get(column, "")), column) for column in COLUMNS]
        table.add_row(label, *("" if value is None else f"{value:.1%}" for value in values))
    return table


def cell(measured: Mapping[str, Any] | None, column: str) -> float | None:
    """The value of a column in results of the shapes suite; None if there is none."""
    if measured is None:
        return None
    skill = column.removeprefix("held-out ")
    if skill in ("draw", "answer"):
        section = measured["held_out"] if column.startswith("held-out") else measured
        return section[skill]["overall"]
    return measured["answer"].get(column)
