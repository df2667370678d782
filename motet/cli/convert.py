"""`motet convert`."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from motet.convert.janus import Converted, convert_folder
from motet.report.terminal import Terminal, say
from motet.weights.locate import resolve_checkpoint


def convert(source: Path, out: Path, preset: str | None, check: bool, shard_gb: float) -> None:
    """Convert a Janus between the two layouts and print what was done."""
    done = convert_folder(
        Path(resolve_checkpoint(source)), out, preset=preset, compare=check, shard_bytes=int(shard_gb * 1e9)
    )
    Terminal().print(_table(done))
    if done.layout == "original" and not done.published:
        say("DeepSeek's own code builds published sizes only; this is none of them.")
    say(out)


def _table(done: Converted) -> Table:
    table = Table(title=f"Converted to the layout of {done.layout}", show_header=False)
    table.add_row("tensors", f"{done.tensors}, each used once, all of the model's shapes")
    table.add_row("parameters", f"{done.parameters:,}")
    table.add_row("kept aside", f"{done.unread} original tensors that the model does not use")
    table.add_row("read back", "every bit is the same" if done.compared else "no (--check reads and compares)")
    table.add_row("seconds", f"{done.seconds:.1f}")
    return table
