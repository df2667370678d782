"""What reinforcement learning gained by the suite `rewards`: before, after, and the difference with its interval.

Of every track the first reward counts; the others are in the run's `summary.json`. All differences are paired by row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from motet.config.plan import Plan, Stage, trajectories
from motet.numerics.intervals import paired_interval
from motet.report.tables import signed

Interval = tuple[float, float]
"""Mean and half-width of the 95 % interval."""


@dataclass(frozen=True)
class Gain:
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
class Contrast:
    """`one` minus `other` by their first rewards, row by row: with the starting weights, and after training."""

    label: str
    one: str
    other: str
    seed: int
    before: Interval | None
    after: Interval | None


def gains(plan: Plan, summary: Mapping[str, Any]) -> list[Gain]:
    """A gain per track of every stage that the suite `rewards` measured before and after."""
    return [
        gain
        for stage in plan.stages
        if stage.kind == "rl" and stage.recipe.eval.suite == "rewards"
        for gain in _of_stage(stage, summary["stages"][stage.name])
    ]


def _of_stage(stage: Stage, result: Mapping[str, Any]) -> list[Gain]:
    found: list[Gain] = []
    recipe, played = stage.recipe, trajectories(stage.recipe)
    for (name, track), measured in zip(recipe.practised().items(), result["before"], strict=True):
        before, after = result["before"][measured], result["after"][measured]
        reward = next(iter(before))
        one, other = before[reward], after[reward]
        if None in (one["mean"], other["mean"], one["greedy"], other["greedy"]):
            continue  # it applies to no held-back row: there is nothing to gain, as the stage's own table says
        gain = Gain(
            stage=f"{stage.name}: {name}" if name else stage.name,
            scenario=track.scenario,
            policy=Path(recipe.policy.path).name,
            seed=recipe.run.seed,
            credit=recipe.algorithm.credit,
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


def contrasts(plan: Plan, summary: Mapping[str, Any]) -> list[Contrast]:
    """What the plan compares."""
    return [
        Contrast(label, one.name, other.name, one.recipe.run.seed, *_between(one, other, summary))
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


@dataclass(frozen=True)
class Sheet:
    """A table before it has a form. Columns in which all rows agree are said once, below it."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def table(self) -> Table:
        """For the terminal: words on the left, numbers on the right."""
        headings, rows, said = self._parted()
        table = Table(title=self.title, title_justify="left", caption=said or None, caption_justify="left")
        for heading in headings:
            words = heading in WORDS
            table.add_column(heading, justify="left" if words else "right", overflow="fold", no_wrap=not words)
        for row in rows:
            table.add_row(*map(escape, row))
        return table

    def markdown(self) -> str:
        """The same; title and what is said once are paragraphs."""
        headings, rows, said = self._parted()
        lines = [headings, ["---"] * len(headings), *rows]
        cells = [" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines]
        return f"{self.title}\n\n" + "".join(f"| {line} |\n" for line in cells) + (f"\n{said}\n" if said else "")

    def _parted(self) -> tuple[list[str], list[list[str]], str]:
        """Headings and rows without what all rows agree on, and that in words."""
        values = dict(zip(self.headings, zip(*self.rows, strict=True), strict=True))
        alike = [name for name in ONCE if len(self.rows) > 1 and name in values and len(set(values[name])) == 1]
        kept = [n for n, name in enumerate(self.headings) if name not in alike]
        rows = [[row[n] for n in kept] for row in self.rows]
        return [self.headings[n] for n in kept], rows, "; ".join(f"{name}: {values[name][0]}" for name in alike)


WORDS = ("stage", "policy", "credit", "reward", "compared")
ONCE = ("policy", "seed", "credit", "trajectories", "reward", "rows")
HEADINGS = ("stage", "policy", "seed", "credit", "trajectories", "rows", "before", "after", "difference", "greedy")


def gains_sheet(found: Sequence[Gain]) -> Sheet:
    """One row per gain."""
    rows = tuple(
        (
            *(gain.stage, gain.policy, str(gain.seed), gain.credit, str(gain.trajectories), str(gain.rows)),
            *(f"{gain.before:.3f}", f"{gain.after:.3f}", signed(gain.difference)),
            f"{gain.greedy[0]:.3f} \u2192 {gain.greedy[1]:.3f}",
        )
        for gain in found
    )
    return Sheet("First rewards on held-back rows, 95 % intervals paired by row", HEADINGS, rows)


def contrasts_sheet(found: Sequence[Contrast]) -> Sheet:
    """One row per contrast."""
    rows = tuple(
        (f"{c.label}: {c.one} \u2212 {c.other}", str(c.seed), signed(c.before), signed(c.after)) for c in found
    )
    title = "Compared on the same rows, 95 % intervals paired by row"
    return Sheet(title, ("compared", "seed", "before", "after"), rows)
