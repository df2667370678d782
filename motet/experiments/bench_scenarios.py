"""Run the scenario benchmark: results before and after training and their difference, by scenario, policy and seed."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from motet.config.bench_scenarios import folder_of
from motet.config.plan import Plan
from motet.experiments.before_after import (
    BeforeAfter,
    Comparison,
    before_after_rows,
    before_after_table,
    comparisons,
    comparisons_table,
)
from motet.experiments.eval_cache import EvalCache
from motet.experiments.stages import check_unused, run_plan
from motet.numerics.statistics import mean_interval
from motet.report.report_table import ReportTable
from motet.report.resume_mode import ResumeChoice
from motet.report.run_count import RunCount
from motet.report.tables import signed
from motet.report.terminal import Terminal


@dataclass(frozen=True)
class BenchResult:
    """The results of the finished seeds."""

    rows: tuple[BeforeAfter, ...]
    compared: tuple[Comparison, ...]


def run_scenarios(
    plans: Mapping[int, Plan], output: Path, resume_command: str, *, resume: ResumeChoice
) -> Iterator[BenchResult]:
    """Run all stages of a seed before the next seed, and yield the results so far after each seed.

    Finished stages are skipped; starting weights are evaluated once. Several processes can run other seeds into one
    output at a time; one process at a time runs a seed. Raises the errors of `run_plan`.
    """
    for seed, plan in plans.items():
        folder = folder_of(output, seed)
        check_unused(folder, resume, [folder / stage.name for stage in plan.stages])
    count, eval_cache = RunCount(Terminal(), len(plans)), EvalCache()
    results = BenchResult((), ())
    for seed, plan in plans.items():
        with count.run(f"seed {seed}"):
            summary = run_plan(plan, folder_of(output, seed), resume_command, resume=True, eval_cache=eval_cache)
        results = BenchResult(
            (*results.rows, *before_after_rows(plan, summary)), (*results.compared, *comparisons(plan, summary))
        )
        yield results


def result_tables(results: BenchResult) -> list[ReportTable]:
    """Tables of every stage and seed, of the comparisons, and with several seeds of the means over seeds."""
    tables = [before_after_table(results.rows)]
    if results.compared:
        tables.append(comparisons_table(results.compared))
    seeds = {row.seed for row in results.rows}
    if len(seeds) > 1:
        title = f"Means over {len(seeds)} seeds, 95 % intervals over seeds (Student's)"
        means = tuple(_over_seeds(rows) for rows in _by_stage(results.rows))
        tables.append(ReportTable(title, ("stage", "policy", "before", "after", "difference"), means))
    return tables


def _by_stage(rows: Sequence[BeforeAfter]) -> list[list[BeforeAfter]]:
    stages = dict.fromkeys(row.stage for row in rows)
    return [[row for row in rows if row.stage == stage] for stage in stages]


def _over_seeds(rows: Sequence[BeforeAfter]) -> tuple[str, ...]:
    before, after = statistics.fmean(row.before for row in rows), statistics.fmean(row.after for row in rows)
    difference = mean_interval([row.after - row.before for row in rows])
    return rows[0].stage, rows[0].policy, f"{before:.3f}", f"{after:.3f}", signed(difference)
