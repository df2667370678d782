"""The run folder: everything that a run leaves behind, at fixed names.

    recipe.yaml      the resolved recipe          metrics.jsonl   one line per step
    samples/         picture grids (PNG)          checkpoints/    step_NNNNNN folders that `from_pretrained` loads
    before.json, before.png, after.png            summary.json    what the run achieved
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motet.errors import RunFolderError


class RunFolder:
    """A run's folder. A new run takes an empty or absent one; a resumed run goes on in its own."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path = path
        used = path.exists() and (not path.is_dir() or any(path.iterdir()))
        if resume and not (path / "recipe.yaml").is_file():
            raise RunFolderError(f"{str(path)!r} holds no run to resume.", fix="leave --resume out to start one there.")
        if used and not resume:
            raise RunFolderError(
                f"The output folder {str(path)!r} is already in use.",
                fix="add --resume to continue that run, or give another --output.",
            )
        path.mkdir(parents=True, exist_ok=True)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        target = self.path / name
        partial = target.with_suffix(target.suffix + ".partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, target)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        self.write_text(name, json.dumps(value, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the run, None if it was not written yet."""
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def append_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line of `metrics.jsonl`, flushed."""
        line = json.dumps({"step": step, **{k: round(float(v), 6) for k, v in metrics.items()}})
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def forget_metrics_from(self, step: int) -> None:
        """Drop lines of steps that a resumed run is about to play again."""
        path = self.path / "metrics.jsonl"
        if path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if line.strip() and json.loads(line)["step"] < step]
            self.write_text("metrics.jsonl", "".join(f"{line}\n" for line in kept))
