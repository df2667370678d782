"""`motet bench`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from motet.cli.using import newest_of
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
    table = Table(title="Sequences per second, same weights and tokens", title_justify="left")
    table.add_column("task")
    for heading in ("batch", "motet", "transformers", "ratio", "(lowest .. highest)", "x the floor's time"):
        table.add_column(heading, justify="right")
    for row in rows:
        scale = row["guidance_scale"]
        guided = "" if scale is None else f", guidance {scale:g}"
        table.add_row(
            f"{row['task']}{guided} ({row['tokens']} tokens) against {row['baseline']}",
            str(row["batch"]),
            f"{row['per_second']:.1f}",
            f"{row['baseline_per_second']:.1f}",
            f"{row['ratio']:.2f}",
            f"({row['ratio_low']:.2f} .. {row['ratio_high']:.2f})",
            f"{row['times_the_floor']:.2f}",
        )
    return table
