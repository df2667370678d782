"""The report that every run leaves in its folder, however it ends."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from motet.core.errors import RunFolderError
from motet.core.printable import without_passwords
from motet.report.html.read import FAILURE
from motet.report.html.write import REPORT, report_at_end
from motet.report.run_dir import RunFolder
from motet.report.terminal import Terminal
from motet.training.signals import Stopped


@contextmanager
def with_report(folder: RunFolder, console: Terminal, *, is_main: bool) -> Iterator[None]:
    """Write `report.html` at the end of the block, in the main process, and print where it is.

    If the block raises, it is written of the steps that are done, with the error; not before the first step.
    """
    if not is_main:
        yield
        return
    (folder.path / FAILURE).unlink(missing_ok=True)  # of the run that is resumed
    try:
        yield
    except BaseException as error:
        if folder.has_started:
            if not isinstance(error, Stopped | KeyboardInterrupt):
                with suppress(RunFolderError):
                    folder.write_json(FAILURE, {"error": without_passwords(str(error) or type(error).__name__)})
            write_and_say([folder.path], folder.path, console)
        raise
    write_and_say([folder.path], folder.path, console)


@contextmanager
def with_comparison(folders: Sequence[Path], output: Path, console: Terminal) -> Iterator[None]:
    """Write `output/report.html` of all run folders that exist at the end of the block, however it ends."""
    try:
        yield
    finally:
        started = [folder for folder in folders if (folder / "recipe.yaml").is_file()]
        if started:
            write_and_say(started, output, console)


def write_and_say(folders: Sequence[Path], output: Path, console: Terminal) -> None:
    """Write the report of runs into a folder; print its path."""
    path = report_at_end(folders, output / REPORT)
    if path is not None:
        console.say(f"Report: {path}")
