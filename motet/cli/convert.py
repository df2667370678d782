"""`motet convert`."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from motet.convert.janus import ConversionResult, convert_folder
from motet.report.progress import waiting
from motet.report.terminal import Terminal, say
from motet.weights.locate import resolve_checkpoint


def convert(source: Path, out: Path, preset: str | None, check: bool, shard_gb: float) -> None:
    """Convert a Janus checkpoint between the two layouts and print a summary."""
    with waiting("convert"):
        done = convert_folder(
            Path(resolve_checkpoint(source)), out, preset=preset, compare=check, shard_bytes=int(shard_gb * 1e9)
        )
    Terminal().print(_table(done))
    if done.layout == "original" and not done.published:
        say("DeepSeek's code supports the published sizes only, and this is not one of them.")
    say(out)


def _table(done: ConversionResult) -> Table:
    table = Table(title=f"Converted to the layout of {done.layout}", show_header=False)
    table.add_row("tensors", f"{done.tensors}, each used once and of the expected shape")
    table.add_row("parameters", f"{done.parameters:,}")
    table.add_row("unused tensors", f"{done.unread}, which the model does not read; saved in a file of their own")
    table.add_row("read back", "identical bit by bit" if done.compared else "no (use --check to compare)")
    table.add_row("seconds", f"{done.seconds:.1f}")
    return table
