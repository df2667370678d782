"""Callbacks and trackers of tests, as a user would write them in a file."""

from pathlib import Path
from typing import Any


class FileWriter:
    """Leaves a file in the run folder."""

    def on_run_start(self, recipe: Any, folder: Path) -> None:
        (folder / "callback.txt").write_text("started", encoding="utf-8")


class FileTracker:
    """Leaves a file in the run folder with everything that it is told."""

    def start(self, run: Any, resumed: Any) -> str:
        self.path = run.folder / "tracker.txt"
        self._write(f"start {resumed} after {run.step}")
        return "id-1"

    def log(self, step: int, metrics: Any) -> None:
        self._write(f"log {step} {' '.join(sorted(metrics))}")

    def log_samples(self, step: int, samples: Any) -> None:
        self._write(f"samples {step} {samples.name} {len(samples.images)} {len(samples.texts)}")

    def finish(self, results: Any) -> None:
        self._write(f"finish {len(results.rows)}")

    def _write(self, line: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
