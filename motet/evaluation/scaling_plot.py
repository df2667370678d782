"""The curves of `motet bench scaling` as a plot and as a Markdown table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TITLES = {
    "generations": "generations",
    "prompts": "prompts",
    "image_tokens": "image tokens",
    "prompt_tokens": "prompt tokens",
}
PHASES = ("step", "generate", "learn")


def plot_scaling(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw seconds and memory against every axis. Needs matplotlib."""
    import matplotlib as mpl

    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "motet"}):
        scaling_figure(rows).savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def scaling_figure(rows: Sequence[Mapping[str, Any]]) -> Any:
    """The plot as a figure of matplotlib."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(row["axis"] for row in rows))
    with mpl.rc_context({"font.size": 8}):
        figure = Figure(figsize=(2.6 * len(axes), 4.2), layout="constrained")
        panels: Any = figure.subplots(2, len(axes), sharey="row", squeeze=False)
        for column, axis in enumerate(axes):
            own = [row for row in rows if row["axis"] == axis]
            values = [row["value"] for row in own]
            top, bottom = panels[0, column], panels[1, column]
            for phase in PHASES:
                top.plot(values, [row["seconds"][phase] for row in own], marker="o", markersize=3, label=phase)
            bottom.plot(values, [row["step_gb"] for row in own], marker="o", markersize=3, color="tab:red")
            bottom.set_xlabel(TITLES.get(axis, axis))
        panels[0, 0].set_ylabel("seconds per step")
        panels[1, 0].set_ylabel("GB above the\nloaded model")
        panels[0, 0].legend(frameon=False)
        for panel in panels.flat:  # last: a limit that is set ends the scaling of its axis, which a row shares
            panel.set_xlim(left=0)
            panel.set_ylim(bottom=0)
    return figure


def scaling_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with a row per point."""
    lines = [
        "| varies | value | generate, s | learn, s | step, s | min-max | GB of a step | peak, GB | matmul share |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        seconds = row["seconds"]
        figures = [f"{seconds[phase]:.2f}" for phase in ("generate", "learn", "step")]
        figures.append(f"{row['step_seconds_low']:.2f}-{row['step_seconds_high']:.2f}")
        figures += [f"{row['step_gb']:.2f}", f"{row['peak_gb']:.2f}", f"{row['matmul_share']:.0%}"]
        lines.append(f"| {TITLES.get(row['axis'], row['axis'])} | {row['value']} | {' | '.join(figures)} |")
    return "\n".join(lines) + "\n"
