"""`motet bench`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from motet.checkpoint import newest_of
from motet.errors import CheckpointError
from motet.evals.bench_rollout import bench_rollout as race


def bench_rollout(
    checkpoint: str | None, batch_sizes: Sequence[int], guidance_scale: float, repeats: int, json_path: Path | None
) -> None:
    """Race our sampler against transformers' and print a row per task and batch size."""
    path = None if checkpoint is None else newest_of(checkpoint)
    try:
        rows = race(path, batch_sizes, guidance_scale, repeats)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path!r} cannot be raced: {str(error).splitlines()[0]}", fix="give a Janus checkpoint, or none at all."
        ) from error
    if json_path is not None:
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    Console().print(rollout_table(rows))


def rollout_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Sequences per second of both sides, their ratio with its extremes, and our time in units of the floor's."""
    table = Table(title="Sequences per second, same weights and same tokens", title_justify="left")
    table.add_column("task", no_wrap=True)
    for heading in ("batch", "motet", "theirs", "ratio", "lowest", "highest", "floor"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        guided = "" if row["guidance_scale"] is None else f", guided {row['guidance_scale']:g}"
        speeds = [f"{row[key]:.1f}" for key in ("per_second", "baseline_per_second")]
        ratios = [f"{row[key]:.2f}" for key in ("ratio", "ratio_low", "ratio_high", "times_the_floor")]
        table.add_row(f"{row['task']}{guided}", str(row["batch"]), *speeds, *ratios)
    baselines = sorted({row["baseline"] for row in rows})
    table.caption = f"theirs: {', '.join(baselines)} of transformers; floor: our time over that of the matrix products"
    return table
