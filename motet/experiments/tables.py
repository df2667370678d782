"""The result tables of a recipe with stages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from motet.config.plan import Plan
from motet.config.stage_files import COLUMNS
from motet.experiments.before_after import before_after_rows, before_after_table, comparisons, comparisons_table
from motet.report.report_table import ReportTable

SAMPLED = tuple(column for column in COLUMNS if not column.startswith(("greedy", "pass@k")))
"""Columns measured at temperature 1, one sample at a time."""


def plan_tables(plan: Plan, summary: Mapping[str, Any]) -> list[Table | ReportTable]:
    """A table for each suite that evaluated stages, and one of the plan's comparisons."""
    tables: list[Table | ReportTable] = []
    if any(stage.recipe.eval.suite.name == "shapes" for stage in plan.stages):
        shapes = shapes_table(plan, summary)
        if len(shapes.columns) > 1:
            tables.append(shapes)
    if gained := before_after_rows(plan, summary):
        tables.append(before_after_table(gained))
    if compared := comparisons(plan, summary):
        tables.append(comparisons_table(compared))
    return tables


def shapes_table(plan: Plan, summary: Mapping[str, Any]) -> Table:
    """One row per entry of `plan.table`, below one row per evaluation of the starting weights.

    Accuracy at temperature 1 on validation items. A cell is empty if the plan's row has no stage for that column, or
    the stage was not evaluated; a column that is empty in every row is left out.
    """
    table = Table(title="Validation items, T=1", title_justify="left")
    table.add_column("")
    starts: Mapping[str, Any] = summary["starts"]
    stages = [stage.name for stage in plan.stages if stage.recipe.eval.suite.name == "shapes"]
    measured = {**{name: summary["stages"][name].get("after") for name in stages}, **starts}
    rows: dict[str, dict[str, float | None]] = {}
    for label, cells in {**{name: dict.fromkeys(COLUMNS, name) for name in starts}, **plan.table}.items():
        rows[label] = {column: cell(measured.get(cells.get(column, "")), column) for column in SAMPLED}
    shown = [column for column in SAMPLED if any(row[column] is not None for row in rows.values())]
    for column in shown:
        table.add_column(column, justify="right")
    for label, row in rows.items():
        table.add_row(label, *("" if row[column] is None else f"{row[column]:.1%}" for column in shown))
    return table


def cell(measured: Mapping[str, Any] | None, column: str) -> float | None:
    """The value of a column in results of the shapes suite; None if there is none."""
    *places, skill = column.split(" ")
    if measured is None or skill not in ("draw", "answer"):
        return None if measured is None else measured["answer"].get(column)
    for place in places:
        key = _largest_k(measured) if place == "pass@k" else place.replace("-", "_")
        measured = measured.get(key)
        if measured is None:
            return None
    return measured[skill]["overall"]


def _largest_k(measured: Mapping[str, Any]) -> str:
    """The key of pass@k for all samples of an item."""
    return max((key for key in measured if key.startswith("pass@")), key=lambda key: int(key[5:]), default="")
