"""Writing a report: of runs that a user names, or of a run at its end."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from os.path import commonpath
from pathlib import Path

from motet.core.atomic_files import write_atomic
from motet.core.errors import MotetError, RunFolderError
from motet.core.registry import first_line
from motet.core.write_errors import write_error
from motet.report.html.read import read_run

REPORT = "report.html"


def write_report(folders: Sequence[Path], out: Path) -> Path:
    """Write the report of one or more run folders to `out`. Raises RunFolderError."""
    from motet.report.html.page import render  # jinja2: only where a report is written

    labels = _labels(folders)
    runs = [read_run(folder, label) for folder, label in zip(folders, labels, strict=True)]
    content = render(runs).encode("utf-8", "backslashreplace")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(out, content)
    except OSError as error:
        raise write_error(RunFolderError, repr(str(out)), error) from error
    return out


def report_at_end(folders: Sequence[Path], out: Path) -> Path | None:
    """The same at the end of a run, which no report may fail: a warning, and None, if it cannot be written."""
    try:
        return write_report(folders, out)
    except Exception as error:
        why = error.problem if isinstance(error, MotetError) else f"{first_line(error)}."
        warnings.warn(f"The report {str(out)!r} is not written: {why}", stacklevel=2)
        return None


def _labels(folders: Sequence[Path]) -> list[str]:
    """The folder's name; of several their paths below the folder that all of them are in."""
    paths = [folder.resolve() for folder in folders]
    if len(paths) == 1:
        return [paths[0].name]
    shared = Path(commonpath([path.parent for path in paths]))
    labels = [path.relative_to(shared).as_posix() for path in paths]
    return [f"{n}: {label}" if labels.count(label) > 1 else label for n, label in enumerate(labels, 1)]
