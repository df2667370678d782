"""`motet report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from motet.cli.options import Overwrite
from motet.cli.outputs import check_output

MAX_DEPTH = 3


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders; a folder of a plan or a sweep stands for its runs.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file to write; default: report.html in the folder, of several in this one."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write one HTML page of a run, or of several side by side."""
    if out is not None or len(runs) > 1:
        check_output("--out", out or Path("report.html"), overwrite=overwrite, suffixes={".html": "HTML"})
    from motet.report.html.write import REPORT, write_report
    from motet.report.terminal import say

    folders = [folder for run in runs for folder in _runs_in(run)]
    say(f"Report: {write_report(folders, out or (runs[0] / REPORT if len(runs) == 1 else Path(REPORT)))}")


def _runs_in(folder: Path) -> list[Path]:
    """The folder, or the run folders below it if it is none, stages in their order."""
    if (folder / "recipe.yaml").is_file() or (folder / "metrics.jsonl").is_file():
        return [folder]
    found = (
        path for depth in range(1, MAX_DEPTH + 1) for path in folder.glob("/".join(["*"] * depth) + "/recipe.yaml")
    )
    return sorted((path.parent for path in found), key=lambda run: (run.parent, _stage_number(run), run)) or [folder]


def _stage_number(run: Path) -> int:
    """The place of a run among the stages of its recipe, as their summary has them; -1 if they are not finished."""
    try:
        stages = json.loads((run.parent / "summary.json").read_text(encoding="utf-8")).get("stages", {})
        return list(stages).index(run.name)
    except (OSError, ValueError, AttributeError, TypeError):
        return -1
