"""`motet card` and `motet push`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from motet.cli.outputs import check_output, write_output
from motet.experiments.hub_upload import Extra, check_repo_id, files_to_upload, size_of, upload
from motet.experiments.model_card import README, Card, find_source, make_card
from motet.report.terminal import Terminal, say


def card(
    run: Path,
    out: Path | None,
    *,
    base: str | None,
    license: str | None,
    best: bool,
    overwrite: bool,
    seeds: Sequence[Path] = (),
) -> None:
    """Write the card and its images, and print its path."""
    folder = out or run / "card"
    check_output("--out", folder / README, overwrite=overwrite)
    made = make_card(find_source(run, best=best), base=base, license=license, seeds=seeds)
    for name, content in {**made.files, README: made.text.encode()}.items():
        write_output("--out", folder / name, content)
    _say_notes(made)
    say(folder / README)


def push(
    run: Path,
    repo: str,
    *,
    dry_run: bool,
    private: bool,
    base: str | None,
    license: str | None,
    best: bool,
    optimizer: bool,
    samples: bool,
    seeds: Sequence[Path] = (),
) -> None:
    """Upload, or list what would be uploaded."""
    check_repo_id(repo)
    source = find_source(run, best=best)
    made = make_card(source, repo, base=base, license=license, seeds=seeds)
    files = files_to_upload(source, made, base, Extra(optimizer, samples))
    _say_notes(made)
    if not dry_run:
        say(upload(files, repo, private=private))
        return
    table = Table("file", title=f"Would be uploaded to {escape(repo)}{' (private)' * private}", title_justify="left")
    table.add_column("bytes", justify="right")
    for name, content in files.items():
        table.add_row(escape(name), f"{size_of(content):,}")
    table.add_row(f"{len(files)} files", f"{sum(map(size_of, files.values())):,}")
    Terminal().print(table)
    say(*made.text.split("\n"))


def _say_notes(made: Card) -> None:
    for note in made.notes:
        say(note, error=True)
