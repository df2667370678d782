"""`motet curate`."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from motet.core.errors import ConfigError, DataError
from motet.curation import Curated, curate, read_captions, read_questions, write_rows
from motet.curation.files import refuse_output
from motet.report.terminal import Terminal, say

WITHOUT = ("keep", "drop")


def run(
    questions: Path, captions: Path, out: Path, *, images: str | None, min_coverage: float, no_entities: str
) -> None:
    """Pair, write, and print what came of it."""
    if no_entities not in WITHOUT:
        raise ConfigError(f"--no-entities {no_entities!r} is neither.", fix=f"write {' or '.join(WITHOUT)}.")
    refuse_output(out)
    keep = no_entities == "keep"
    done = curate(read_questions(questions), read_captions(captions), floor=min_coverage, keep_without_entities=keep)
    console = Terminal()
    console.print(_table(done, keep))
    if done.without_caption:
        first = done.without_caption[0]
        say(f"First without a caption: {first.place}, picture {first.image!r}.")
    if done.unclear:
        first = done.unclear[0]
        say(f"First without a clear option: {first.place}, solution {first.solution!r:.80}.")
    if not done.rows:
        fix = "lower --min-coverage." if done.below else "see above why the questions were left out."
        raise DataError(f"No row is left to write to {str(out)!r}.", fix=fix)
    write_rows(done.rows, out, images)
    say(out)


def _table(done: Curated, keep: bool) -> Table:
    table = Table(title="Questions and the captions that cover them", show_header=False)
    table.add_row("rows", f"{len(done.rows)}")
    table.add_row("mean coverage", "unknown: no solution has entities" if done.mean is None else f"{done.mean:.3f}")
    table.add_row("left out", f"{done.below} below --min-coverage")
    table.add_row("", f"{done.duplicates} that came before")
    table.add_row("", f"{len(done.without_caption)} whose picture has no caption")
    table.add_row("", f"{len(done.unclear)} whose solution is none of their options, or two")
    table.add_row("without entities", f"{done.without_entities}, {'kept, coverage null' if keep else 'left out'}")
    for label, count in done.histogram().items():
        table.add_row(f"covered: {label}", f"{count}")
    return table
