"""`motet merge`."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from motet.report.progress import waiting
from motet.report.terminal import Terminal, say
from motet.weights.locate import resolve_checkpoint
from motet.weights.merge import MergeResult, merge_folders


def merge(models: list[Path], base: Path | None, method: str, out: Path, shard_gb: float) -> None:
    """Merge checkpoints and print a summary."""
    with waiting("merge"):
        done = merge_folders(
            [Path(resolve_checkpoint(model)) for model in models],
            out,
            method=method,
            base=None if base is None else Path(resolve_checkpoint(base)),
            shard_bytes=int(shard_gb * 1e9),
        )
    Terminal().print(_table(done, method))
    say(out)


def _table(done: MergeResult, method: str) -> Table:
    table = Table(title=f"Merged by {method}", show_header=False)
    table.add_row("tensors", f"{done.tensors}, {done.changed} of them merged")
    table.add_row("parameters", f"{done.parameters:,}")
    if done.outlier_share is not None:
        table.add_row("outliers", f"{100 * done.outlier_share:.2f} % of the changes where both models changed")
    table.add_row("seconds", f"{done.seconds:.1f}")
    return table
