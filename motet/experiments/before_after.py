"""Rewards before and after RL by the suite `rewards`, and their difference with its interval.

Only the first reward of every track is used; the others are in the run's `summary.json`. Differences are paired by row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motet.config.plan import Plan, Stage, trajectories
from motet.numerics.statistics import paired_interval
from motet.report.report_table import ReportTable
from motet.report.tables import signed

Interval = tuple[float, float]
"""Mean and half-width of the 95 % interval."""


@dataclass(frozen=True)
class BeforeAfter:
    """One track of one stage with one seed.

    `before` and `after` are means over `rows` validation rows at the training temperature, `greedy` the means at
    temperature 0 (before, after).
    """

    stage: str
    scenario: str
    policy: str
    seed: int
    advantage_assignment: str
    trajectories: int
    reward: str
    rows: int
    before: float
    after: float
    difference: Interval | None
    greedy: tuple[float, float]
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """The difference `one - other` of two stages' first rewards, paired by row, before and after training."""

    label: str
    one: str
    other: str
    seed: int
    before: Interval | None
    after: Interval | None


def before_after_rows(plan: Plan, summary: Mapping[str, Any]) -> list[BeforeAfter]:
    """One result per track of every stage that the suite `rewards` evaluated before and after training."""
    return [
        row
        for stage in plan.stages
        if stage.kind == "rl" and stage.recipe.eval.suite.name == "rewards"
        for row in _of_stage(stage, summary["stages"][stage.name])
    ]


def _of_stage(stage: Stage, result: Mapping[str, Any]) -> list[BeforeAfter]:
    results: list[BeforeAfter] = []
    recipe, num_trajectories = stage.recipe, trajectories(stage.recipe)
    for (name, track), measured in zip(recipe.resolved_tracks().items(), result["before"], strict=True):
        before, after = result["before"][measured], result["after"][measured]
        reward = next(iter(before))
        one, other = before[reward], after[reward]
        if None in (one["mean"], other["mean"], one["greedy"], other["greedy"]):
            continue  # the reward does not apply to any validation row
        row = BeforeAfter(
            stage=f"{stage.name}: {name}" if name else stage.name,
            scenario=track.scenario.name,
            policy=Path(recipe.policy.path).name,
            seed=recipe.run.seed,
            advantage_assignment=recipe.algorithm.advantage_assignment,
            trajectories=num_trajectories[name],
            reward=reward,
            rows=int(other["rows"]),
            before=one["mean"],
            after=other["mean"],
            difference=paired_interval(one["by_row"], other["by_row"]),
            greedy=(one["greedy"], other["greedy"]),
            seconds=result["seconds"],
        )
        results.append(row)
    return results


def comparisons(plan: Plan, summary: Mapping[str, Any]) -> list[Comparison]:
    """The comparisons listed in the plan."""
    return [
        Comparison(label, one.name, other.name, one.recipe.run.seed, *_between(one, other, summary))
        for label, (one, other) in plan.compare.items()
    ]


def _between(one: Stage, other: Stage, summary: Mapping[str, Any]) -> list[Interval | None]:
    rows_of_both = [
        [_first(summary["stages"][stage.name][when])["by_row"] for stage in (other, one)]
        for when in ("before", "after")
    ]
    return [paired_interval(*rows) for rows in rows_of_both]


def _first(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """The results of the first reward of the first track."""
    return next(iter(next(iter(table.values())).values()))


HEADINGS = ("stage", "policy", "seed", "advantage", "trajectories", "rows", "before", "after", "difference", "greedy")


def before_after_table(found: Sequence[BeforeAfter]) -> ReportTable:
    """A table with one row per track, stage and seed."""
    rows = tuple(
        (
            *(row.stage, row.policy, str(row.seed), row.advantage_assignment, str(row.trajectories), str(row.rows)),
            *(f"{row.before:.3f}", f"{row.after:.3f}", signed(row.difference)),
            f"{row.greedy[0]:.3f} \u2192 {row.greedy[1]:.3f}",
        )
        for row in found
    )
    return ReportTable("First rewards on validation rows, 95 % intervals paired by row", HEADINGS, rows)


def comparisons_table(found: Sequence[Comparison]) -> ReportTable:
    """A table with one row per comparison."""
    rows = tuple(
        (f"{c.label}: {c.one} \u2212 {c.other}", str(c.seed), signed(c.before), signed(c.after)) for c in found
    )
    title = "Compared on the same rows, 95 % intervals paired by row"
    return ReportTable(title, ("compared", "seed", "before", "after"), rows)
