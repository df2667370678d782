"""Make the figures of the docs from run folders.

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


def save_before_after(run: Path, out: Path, lines: int) -> None:
    """Save the first rows of the image grids before and after training, one above the other."""
    line, head = 188, 40  # row and header height of motet.report.image_grid
    grids = [Image.open(run / f"{name}.png") for name in ("before", "after")]
    height = head + lines * line
    sheet = Image.new("RGB", (grids[0].width, 2 * height + 10), "white")
    for place, grid in enumerate(grids):
        sheet.paste(grid.crop((0, 0, grid.width, height - 12)), (0, place * (height + 10)))
    sheet.save(out, optimize=True)


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def curve(axis: Any, rows: list[dict[str, Any]], key: str, label: str, colour: str, smooth: int = 1) -> None:
    # The metrics of a track are prefixed with its name.
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


def join_metrics(runs: list[Path]) -> list[dict[str, Any]]:
    """Metrics of consecutive runs, with steps numbered continuously."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        before = rows[-1]["step"] + 1 if rows else 0
        rows += [{**row, "step": row["step"] + before} for row in metrics(run)]
    return rows


def save_curves(demo: Path, sft: list[Path], out: Path) -> None:
    """Plot evaluations during SFT, and rewards and answer lengths during RL."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.6), constrained_layout=True)
    supervised, reinforced = join_metrics(sft), metrics(demo)
    for key, label, colour in (
        ("eval/draw", "image generation, T = 1", GREEN),
        ("eval/answer", "answering, T = 1", BLUE),
        ("eval/answer_greedy", "answering, greedy", GREY),
    ):
        curve(axes[0], supervised, key, label, colour)
    axes[0].set(title="SFT (256 validation items)", xlabel="step", ylim=(0, 1))
    for key, label, colour in (
        ("rewards/shapes/mean", "image generation", GREEN),
        ("answer/rewards/exact_answer/mean", "answering (mostly order)", BLUE),
    ):
        curve(axes[1], reinforced, key, label, colour, smooth=10)
    axes[1].set(title="RL (training rewards)", xlabel="step", ylim=(0.5, 1.02))
    curve(axes[2], reinforced, "completion_length/mean", "tokens per answer", BLUE, smooth=10)
    axes[2].set(title="answer length with chain of thought", xlabel="step")
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    figure.savefig(out / "curves.png", dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--sft", type=Path, nargs="+", required=True)
    parser.add_argument(
        "--unified", type=Path, required=True, help="a stage of the scenario benchmark that generates images"
    )
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_before_after(arguments.demo, arguments.out / "before_after.png", lines=3)
    save_before_after(arguments.unified, arguments.out / "unified.png", lines=2)
    save_curves(arguments.demo, arguments.sft, arguments.out)


if __name__ == "__main__":
    main()
