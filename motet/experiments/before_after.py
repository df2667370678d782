"""What reinforcement learning gained by the suite `rewards`: before, after, and the difference with its interval.

Of every track the first reward counts; the others are in the run's `summary.json`. All differences are paired by row.
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
    """One track of one stage under one seed. `before` and `after` are means over `rows` held-back rows at the
    training's temperature, `greedy` the means at temperature 0 (before, after)."""

    stage: str
    scenario: str
    policy: str
    seed: int
    credit: str
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
    """`one` minus `other` by their first rewards, row by row: with the starting weights, and after training."""

    label: str
    one: str
    other: str
    seed: int
    before: Interval | None
    after: Interval | None


def gains(plan: Plan, summary: Mapping[str, Any]) -> list[BeforeAfter]:
    """A gain per track of every stage that the suite `rewards` measured before and after."""
    return [
        gain
        for stage in plan.stages
        if stage.kind == "rl" and stage.recipe.eval.suite.name == "rewards"
        for gain in _of_stage(stage, summary["stages"][stage.name])
    ]


def _of_stage(stage: Stage, result: Mapping[str, Any]) -> list[BeforeAfter]:
    found: list[BeforeAfter] = []
    recipe, played = stage.recipe, trajectories(stage.recipe)
    for (name, track), measured in zip(recipe.resolved_tracks().items(), result["before"], strict=True):
        before, after = result["before"][measured], result["after"][measured]
        reward = next(iter(before))
        one, other = before[reward], after[reward]
        if None in (one["mean"], other["mean"], one["greedy"], other["greedy"]):
            continue  # it applies to no held-back row: there is nothing to gain, as the stage's own table says
        gain = BeforeAfter(
            stage=f"{stage.name}: {name}" if name else stage.name,
            scenario=track.scenario.name,
            policy=Path(recipe.policy.path).name,
            seed=recipe.run.seed,
            credit=recipe.algorithm.advantage_assignment,
            trajectories=played[name],
            reward=reward,
            rows=int(other["rows"]),
            before=one["mean"],
            after=other["mean"],
            difference=paired_interval(one["by_row"], other["by_row"]),
            greedy=(one["greedy"], other["greedy"]),
            seconds=result["seconds"],
        )
        found.append(gain)
    return found


def contrasts(plan: Plan, summary: Mapping[str, Any]) -> list[Comparison]:
    """What the plan compares."""
    return [
        Comparison(label, one.name, other.name, one.recipe.run.seed, *_between(one, other, summary))
        for label, (one, other) in plan.compare.items()
    ]


def _between(one: Stage, other: Stage, summary: Mapping[str, Any]) -> list[Interval | None]:
    views = [
        [_first(summary["stages"][stage.name][when])["by_row"] for stage in (other, one)]
        for when in ("before", "after")
    ]
    return [paired_interval(*rows) for rows in views]


def _first(table: Mapping[str, Any]) -> Mapping[str, Any]:
    """The numbers of the first reward of the first track."""
    return next(iter(next(iter(table.values())).values()))


HEADINGS = ("stage", "policy", "seed", "credit", "trajectories", "rows", "before", "after", "difference", "greedy")


def gains_sheet(found: Sequence[BeforeAfter]) -> ReportTable:
    """One row per gain."""
    rows = tuple(
        (
            *(gain.stage, gain.policy, str(gain.seed), gain.credit, str(gain.trajectories), str(gain.rows)),
            *(f"{gain.before:.3f}", f"{gain.after:.3f}", signed(gain.difference)),
            f"{gain.greedy[0]:.3f} \u2192 {gain.greedy[1]:.3f}",
        )
        for gain in found
    )
    return ReportTable("First rewards on held-back rows, 95 % intervals paired by row", HEADINGS, rows)


def contrasts_sheet(found: Sequence[Comparison]) -> ReportTable:
    """One row per contrast."""
    rows = tuple(
        (f"{c.label}: {c.one} \u2212 {c.other}", str(c.seed), signed(c.before), signed(c.after)) for c in found
    )
    title = "Compared on the same rows, 95 % intervals paired by row"
    return ReportTable(title, ("compared", "seed", "before", "after"), rows)
