"""Tables of `motet bench learner` and `motet bench scaling`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.table import Table

from motet.evaluation.bench_scaling import doublings
from motet.evaluation.scaling_plot import TITLES


def learner_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Per task and phase the seconds of both sides and their ratio, with its extremes and its target."""
    table = Table(title="Seconds of a GRPO step, same weights, prompts and lengths", title_justify="left")
    table.add_column("task", no_wrap=True)
    table.add_column("phase", no_wrap=True)
    for heading in ("motet", "baseline", "ratio", "min", "max", "target"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        kl = f", KL {row['beta']:g}" if row["beta"] else ""
        for phase, seconds in row["seconds"].items():
            ratios = row["ratios"][phase]
            target = row["target"] if phase == "step" else None
            table.add_row(
                f"{row['task']}{kl}" if phase == "generate" else "",
                phase,
                f"{seconds:.2f}",
                f"{row['baseline_seconds'][phase]:.2f}",
                *(f"{ratios[key]:.2f}" for key in ("ratio", "ratio_low", "ratio_high")),
                "" if target is None else f"{target:g}",
            )
    names = {row["task"]: row["baseline"] for row in rows}
    table.caption = "baselines: " + "; ".join(f"{task}: {escape(name)}" for task, name in names.items())
    return table


def memory_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What log-probs and their gradient take per vocabulary."""
    table = Table(title="Memory of log-probs and their gradient, MB", title_justify="left")
    for heading in ("vocabulary", "peak", "gradient of the head", "the rest", "all logits"):
        table.add_column(heading, justify="right")
    for row in rows:
        figures = (f"{row[key]:.1f}" for key in ("peak_mb", "head_mb", "rest_mb", "all_logits_mb"))
        table.add_row(f"{row['vocabulary']:,}", *figures)
    return table


def scaling_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Seconds and memory per point, and how much longer a step of twice as many generations takes."""
    table = Table(title="A training step on images, one quantity varied at a time", title_justify="left")
    table.add_column("varies", no_wrap=True)
    for heading in ("value", "generate,\ns", "learn,\ns", "step,\ns", "step,\nGB", "peak,\nGB", "matmul\nshare"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        times = [f"{row['seconds'][phase]:.2f}" for phase in ("generate", "learn", "step")]
        memory = [f"{row[key]:.2f}" for key in ("step_gb", "peak_gb")]
        table.add_row(
            TITLES.get(row["axis"], row["axis"]), str(row["value"]), *times, *memory, f"{row['matmul_share']:.0%}"
        )
    growth = ", ".join(f"{value}: {factor:.2f}" for value, factor in doublings(rows, "generations").items())
    table.caption = f"Time of a step over that of half as many generations (target: below 2): {growth}"
    return table
