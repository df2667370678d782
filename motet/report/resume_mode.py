"""`--resume auto`: resume if the output folder holds a run, else start one. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from motet.config import Recipe, load_recipe
from motet.core.errors import ConfigError
from motet.report.run_dir import RECIPE, RunFolder

SUMMARY = "summary.json"
ResumeChoice = bool | str
"""True, False or "auto"."""


def resumes_run(output: Path, resume: ResumeChoice) -> bool:
    """Whether a run is resumed. Raises ConfigError for a choice that is none."""
    return _check(resume) if resume != "auto" else (output / RECIPE).is_file()


def resumes_any(output: Path, resume: ResumeChoice, folders: Iterable[Path]) -> bool:
    """The same for stages and seeds, which have these folders: whether one of them was started."""
    return _check(resume) if resume != "auto" else output.is_dir() and any(folder.is_dir() for folder in folders)


def _check(resume: ResumeChoice) -> bool:
    if not isinstance(resume, bool):
        raise ConfigError(f"resume={resume!r} must be True, False or 'auto'.", fix="correct it.")
    return resume


def finished_summary(folder: RunFolder, recipe: Recipe) -> dict[str, Any] | None:
    """The summary of a run that has done all steps of the recipe; None if steps or the last evaluation remain."""
    summary = folder.read_json(SUMMARY)
    if summary is None:
        return None
    before, now = load_recipe(folder.path / RECIPE).run, recipe.run
    ended_by_time = now.minutes is not None and (before.steps, before.minutes) == (now.steps, now.minutes)
    return summary if summary["steps"] == now.steps or ended_by_time else None
