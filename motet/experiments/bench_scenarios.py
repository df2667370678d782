"""Runs the scenario benchmark and tabulates it: before, after and the difference, by scenario, policy and seed."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from motet.config.bench_scenarios import folder_of
from motet.config.plan import Plan
from motet.core.errors import RunFolderError
from motet.experiments.before_after import BeforeAfter, Comparison, contrasts, contrasts_sheet, gains, gains_sheet
from motet.experiments.eval_cache import EvalCache
from motet.experiments.stages import run_plan
from motet.numerics.statistics import mean_interval
from motet.report.report_table import ReportTable
from motet.report.tables import signed
from motet.report.terminal import Terminal


@dataclass(frozen=True)
class Found:
    """What the seeds that are done came to."""

    gains: tuple[BeforeAfter, ...]
    compared: tuple[Comparison, ...]


def run_scenarios(plans: Mapping[int, Plan], output: Path, resume_command: str, *, resume: bool) -> Iterator[Found]:
    """Run all stages of a seed before the next seed, and yield after each seed what is known by then.

    What is finished is skipped; starting weights are measured once. Raises as `run_plan` does.
    """
    if output.exists() and any(output.iterdir()) and not resume:
        fix = "add --resume to go on there, or give another --output."
        raise RunFolderError(f"The output folder {str(output)!r} is already in use.", fix=fix)
    console, measurements = Terminal(), EvalCache()
    found = Found((), ())
    for seed, plan in plans.items():
        console.rule(f"seed {seed}")
        summary = run_plan(plan, folder_of(output, seed), resume_command, resume=True, measurements=measurements)
        found = Found((*found.gains, *gains(plan, summary)), (*found.compared, *contrasts(plan, summary)))
        yield found


def sheets(found: Found) -> list[ReportTable]:
    """Every stage under every seed; what is compared; and with several seeds the means over them."""
    made = [gains_sheet(found.gains)]
    if found.compared:
        made.append(contrasts_sheet(found.compared))
    seeds = {gain.seed for gain in found.gains}
    if len(seeds) > 1:
        title = f"Means over {len(seeds)} seeds, 95 % intervals over seeds (Student's)"
        rows = tuple(_over_seeds(own) for own in _by_stage(found.gains))
        made.append(ReportTable(title, ("stage", "policy", "before", "after", "difference"), rows))
    return made


def _by_stage(gained: Sequence[BeforeAfter]) -> list[list[BeforeAfter]]:
    stages = dict.fromkeys(gain.stage for gain in gained)
    return [[gain for gain in gained if gain.stage == stage] for stage in stages]


def _over_seeds(own: Sequence[BeforeAfter]) -> tuple[str, ...]:
    before, after = statistics.fmean(g.before for g in own), statistics.fmean(g.after for g in own)
    difference = mean_interval([gain.after - gain.before for gain in own])
    return own[0].stage, own[0].policy, f"{before:.3f}", f"{after:.3f}", signed(difference)
