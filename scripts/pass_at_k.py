"""Tabulate and plot pass@k of the strategies of a sweep whose suite is `shapes`, with many samples per item.

    python scripts/pass_at_k.py recipes/shapes_large_sharpening.yaml runs/sharpening --out runs/pass_at_k.png

Prints a Markdown table per set of items: the start, and each strategy's change of greedy accuracy and of pass@k, in
percentage points, with 95 % intervals paired by item. Over several seeds each item's values are averaged first:
intervals cover the choice of items, not the variation of training.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from motet.config.sweep import StrategySweep, load_sweep
from motet.evaluation.shapes_suite import pass_at_k
from motet.numerics.statistics import paired_interval

Items = dict[int, list[float]]
"""k -> pass@k of each item."""


def items_of(summary: dict[str, Any], split: str, ability: str, num_samples: int) -> Items:
    """pass@k of each item for k = 1, 2, 4 and so on; summary.json holds the share of correct samples of each."""
    by_item = summary["by_item"] if split == "test" else summary["by_item"][split]
    counts = [round(share * num_samples) for share in by_item[ability]["overall"]]
    budgets = [2**power for power in range(num_samples.bit_length()) if 2**power <= num_samples]
    return {k: [pass_at_k(count, num_samples, k) for count in counts] for k in budgets}


def mean_over_seeds(seeds: Sequence[Items]) -> Items:
    return {
        k: [statistics.fmean(values) for values in zip(*(seed[k] for seed in seeds), strict=True)] for k in seeds[0]
    }


def greedy_of(summary: dict[str, Any], split: str, ability: str) -> float:
    greedy = summary["greedy"]
    return (greedy if split == "test" else greedy[split])[ability]["overall"]


def load(sweep: StrategySweep, output: Path, ability: str) -> dict[str, list[dict[str, Any]]]:
    """The start and every strategy -> the evaluations of its seeds; one that begins with SFT has none of its start."""
    starts: list[dict[str, Any]] = []
    found: dict[str, list[dict[str, Any]]] = {}
    for strategy, stages in sweep.results.items():
        files = [sweep.folder(output, strategy, seed) / "summary.json" for seed in sweep.seeds]
        summaries = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        starts += [summary["starts"]["start"] for summary in summaries if "start" in summary["starts"]]
        found[strategy] = [summary["stages"][stages[ability]]["after"] for summary in summaries]
    return {"start": starts[:1], **found}


def table(found: dict[str, list[dict[str, Any]]], split: str, ability: str, num_samples: int) -> dict[str, Items]:
    """Print the table of one set of items; returns pass@k of each item by strategy."""
    items = {
        name: mean_over_seeds([items_of(one, split, ability, num_samples) for one in evaluations])
        for name, evaluations in found.items()
    }
    start, budgets = items["start"], list(items["start"])
    print(f"\n| {split}, {len(start[1])} items | greedy | T = 1 |", *(f"pass@{k} |" for k in budgets[1:]))
    print("|---|---|" + "---|" * len(budgets))
    greedy = {name: statistics.fmean(greedy_of(one, split, ability) for one in found[name]) for name in found}
    for name, own in items.items():
        cells = (
            [f"{100 * greedy[name]:.1f} %"] if name == "start" else [f"{100 * (greedy[name] - greedy['start']):+.1f}"]
        )
        for k in budgets:
            if name == "start":
                cells.append(f"{100 * statistics.fmean(own[k]):.1f} %")
            elif (change := paired_interval(start[k], own[k])) is not None:
                cells.append(f"{100 * change[0]:+.1f} ± {100 * change[1]:.1f}")
        print(f"| {name} |", " | ".join(cells), "|")
    return items


def plot(tables: dict[str, dict[str, Items]], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = (len(tables) + 1) // 2
    figure, axes = plt.subplots(rows, 2, figsize=(10, 3.6 * rows), constrained_layout=True, squeeze=False)
    for axis, (split, strategies) in zip(axes.flat, tables.items(), strict=False):
        for name, items in strategies.items():
            style = {"color": "black", "linestyle": "--"} if name == "start" else {}
            axis.plot(list(items), [100 * statistics.fmean(v) for v in items.values()], label=name, marker="o", **style)
        axis.set(title=split, xlabel="samples k", ylabel="pass@k, %", xscale="log")
        axis.set_xticks(list(items), [str(k) for k in items])
        axis.minorticks_off()
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].legend(frameon=False)
    figure.savefig(out, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="the sweep's recipe")
    parser.add_argument("sweep", type=Path, help="output of motet sweep")
    parser.add_argument("--ability", choices=("draw", "answer"), default="draw")
    parser.add_argument("--splits", nargs="+", default=["test", "only_drawn", "only_asked", "held_out"])
    parser.add_argument("--out", type=Path, help="file of the plot")
    arguments = parser.parse_args()
    sweep = load_sweep(arguments.recipe, arguments.sweep)
    num_samples = next(iter(sweep.plans[sweep.baseline].values())).stages[-1].recipe.eval.samples_per_item
    found = load(sweep, arguments.sweep, arguments.ability)
    tables = {split: table(found, split, arguments.ability, num_samples) for split in arguments.splits}
    if arguments.out is not None:
        plot(tables, arguments.out)


if __name__ == "__main__":
    main()
