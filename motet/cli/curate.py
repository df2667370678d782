"""`motet curate`."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from motet.core.errors import DataError
from motet.curation import Curated, curate, read_captions, read_questions, write_rows
from motet.curation.files import check_output
from motet.report.terminal import Terminal, say


def run(
    questions: Path, captions: Path, out: Path, *, images: str | None, min_coverage: float, keep_without_entities: bool
) -> None:
    """Pair questions with captions, write the rows, and print a summary."""
    check_output(out)
    from motet.report.progress import waiting

    with waiting("pair questions with captions"):
        done = curate(
            read_questions(questions),
            read_captions(captions),
            min_coverage=min_coverage,
            keep_without_entities=keep_without_entities,
        )
    Terminal().print(_table(done, keep_without_entities))
    if done.without_caption:
        first = done.without_caption[0]
        say(f"First without a caption: {first.source_location}, image {first.image!r}.")
    if done.invalid_gold:
        first = done.invalid_gold[0]
        say(f"First without a clear option: {first.source_location}, solution {first.solution!r:.80}.")
    if not done.rows:
        fix = "lower --min-coverage." if done.num_below else "see above why the questions were left out."
        raise DataError(f"No row is left to write to {str(out)!r}.", fix=fix)
    write_rows(done.rows, out, images)
    say(out)


def _table(done: Curated, keep: bool) -> Table:
    table = Table(title="Questions paired with captions", show_header=False)
    table.add_row("rows", f"{len(done.rows)}")
    table.add_row("mean coverage", "unknown: no solution has entities" if done.mean is None else f"{done.mean:.3f}")
    table.add_row("left out", f"{done.num_below} below --min-coverage")
    table.add_row("", f"{done.duplicates} duplicates")
    table.add_row("", f"{len(done.without_caption)} whose image has no caption")
    table.add_row("", f"{len(done.invalid_gold)} whose solution does not match exactly one option")
    table.add_row("without entities", f"{done.without_entities}, {'kept, coverage null' if keep else 'left out'}")
    for label, count in done.histogram().items():
        table.add_row(f"covered: {label}", f"{count}")
    return table
