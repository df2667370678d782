"""Callbacks of tests, as a user would write them in a file."""

from pathlib import Path
from typing import Any


class FileWriter:
    """Leaves a file in the run folder."""

    def on_run_start(self, recipe: Any, folder: Path) -> None:
        (folder / "callback.txt").write_text("started", encoding="utf-8")
