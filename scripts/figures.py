"""Make the pictures of the docs from run folders.

python scripts/figures.py --demo runs/demo --sft runs/cold_start/first runs/cold_start/second \
    --unified runs/scenarios/seed_0/unified_draw --out docs/pictures
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image

GREEN, BLUE, GREY = "#34a254", "#2f6fde", "#9aa0a8"


def before_after(run: Path, out: Path, lines: int) -> None:
    """The first lines of the run's two grids, one above the other."""
    line, head = 188, 40  # of motet.report.image_grid
    grids = [Image.open(run / f"{name}.png") for name in ("before", "after")]
    height = head + lines * line
    sheet = Image.new("RGB", (grids[0].width, 2 * height + 10), "white")
    for place, grid in enumerate(grids):
        sheet.paste(grid.crop((0, 0, grid.width, height - 12)), (0, place * (height + 10)))
    sheet.save(out, optimize=True)


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def curve(axis: Any, rows: list[dict[str, Any]], key: str, label: str, colour: str, smooth: int = 1) -> None:
    # A track's metrics carry its name before them.
    named = next((name for row in rows for name in row if name == key or name.endswith(f"/{key}")), key)
    points = [(row["step"], row[named]) for row in rows if named in row]
    steps, values = [p[0] for p in points], [p[1] for p in points]
    if smooth > 1:
        axis.plot(steps, values, color=colour, alpha=0.2, linewidth=0.8)
        values = [
            sum(values[max(0, i - smooth) : i + 1]) / len(values[max(0, i - smooth) : i + 1])
            for i in range(len(values))
        ]
    axis.plot(
        steps, values, label=label, color=colour, linewidth=1.8, marker="o" if smooth == 1 else None, markersize=3
    )


def one_after_another(runs: list[Path]) -> list[dict[str, Any]]:
    """Metrics of runs that went on from each other, their steps counted through."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        before = rows[-1]["step"] + 1 if rows else 0
        rows += [{**row, "step": row["step"] + before} for row in metrics(run)]
    return rows


def curves(demo: Path, sft: list[Path], out: Path) -> None:
    """Supervised training until it flattens, then reinforcement learning."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), constrained_layout=True)
    supervised, reinforced = one_after_another(sft), metrics(demo)
    for key, label, colour in (
        ("eval/draw", "drawing, T = 1", GREEN),
        ("eval/answer", "answering, T = 1", BLUE),
        ("eval/answer_greedy", "answering, greedy", GREY),
    ):
        curve(axes[0], supervised, key, label, colour)
    axes[0].set(title="supervised cold start (256 held-back items)", xlabel="step", ylim=(0, 1))
    for key, label, colour in (
        ("rewards/shapes/mean", "drawing", GREEN),
        ("answer/rewards/exact_answer/mean", "answering (mostly order)", BLUE),
    ):
        curve(axes[1], reinforced, key, label, colour, smooth=10)
    axes[1].set(title="reinforcement learning (training rewards)", xlabel="step", ylim=(0.5, 1.02))
    curve(axes[2], reinforced, "completion_length/mean", "tokens per answer", BLUE, smooth=10)
    axes[2].set(title="length of answers, thoughts included", xlabel="step")
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    figure.savefig(out / "curves.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--sft", type=Path, nargs="+", required=True)
    parser.add_argument("--unified", type=Path, required=True, help="a stage of the scenario benchmark that draws")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    before_after(arguments.demo, arguments.out / "before_after.png", lines=3)
    before_after(arguments.unified, arguments.out / "unified.png", lines=2)
    curves(arguments.demo, arguments.sft, arguments.out)


if __name__ == "__main__":
    main()
