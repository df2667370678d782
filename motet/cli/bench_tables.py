"""Tables of `motet bench learner`, `motet bench rewards-overlap` and `motet bench scaling`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from motet.evaluation.bench_overlap import OverlapTimes
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
    table.caption = "baselines: " + "; ".join(f"{task}: {name}" for task, name in names.items())
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


def overlap_table(times: OverlapTimes) -> Table:
    """What of the rewards' time is hidden, and what that saves."""
    table = Table(title=f"Rewards beside sampling and training, {times.steps} steps", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    table.show_header = False
    table.add_row("rewards of a step, s", f"{times.called:.3f}")
    table.add_row("of these waited for, s", f"{times.waited:.3f}")
    table.add_row(
        "hidden, with a 95 % interval",
        f"{100 * times.hidden:.1f} % [{100 * times.hidden_low:.1f}, {100 * times.hidden_high:.1f}]",
    )
    table.add_row("step without overlap, s", f"{times.step_seconds_in_turn:.3f}")
    table.add_row("step with overlap, s", f"{times.step_seconds:.3f}")
    table.add_row("ratio, with its extremes", f"{times.ratio:.2f} [{times.ratio_low:.2f}, {times.ratio_high:.2f}]")
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
