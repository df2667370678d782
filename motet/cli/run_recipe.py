"""The recipe that a checkpoint was trained by."""

from __future__ import annotations

from pathlib import Path

from motet.config import Recipe, load_recipe
from motet.report.run_dir import RECIPE


def run_recipe(checkpoint: str) -> Recipe | None:
    """The recipe of the run whose folder, or one of whose checkpoints, this is; None for any other checkpoint.

    Raises ConfigError if it cannot be read.
    """
    folder = Path(checkpoint).absolute()
    run = next((run for run in (folder, folder.parent.parent) if (run / RECIPE).is_file()), None)
    return None if run is None else load_recipe(run / RECIPE)
