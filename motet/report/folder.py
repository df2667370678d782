"""The run folder: everything that a run leaves behind, at fixed names.

recipe.yaml, start.json         the resolved recipe; digests of the weights that it starts from
metrics.jsonl, failures.jsonl   a line per step; a line per failed trajectory
samples/                        picture grids (PNG) and texts (JSONL) of some steps
checkpoints/                    step_NNNNNN folders that `from_pretrained` loads
before.json, before.png, after.png, summary.json    what the run achieved
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from motet.errors import RunFolderError

RECIPE, START, METRICS, FAILURES = "recipe.yaml", "start.json", "metrics.jsonl", "failures.jsonl"


class RunFolder:
    """A run's folder. A new run takes an empty or absent one; a resumed run goes on in its own.

    Making the object only looks; `create` is the first to write. Raises RunFolderError for a folder that is in use,
    that holds no run to resume, or that cannot be written.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path, self.resume = path, resume
        self._made: list[Path] = []  # folders that `create` made, innermost first
        try:
            used = path.exists() and (not path.is_dir() or any(path.iterdir()))
        except OSError as error:
            raise self._unusable(error) from error
        if resume and not (path / RECIPE).is_file():
            raise RunFolderError(f"{str(path)!r} holds no run to resume.", fix="leave --resume out to start one there.")
        if used and not resume:
            raise RunFolderError(
                f"The output folder {str(path)!r} is already in use.",
                fix="add --resume to continue that run, or give another --output."
                if (path / RECIPE).is_file()
                else "give another --output.",
            )

    def create(self, recipe: str, start: Mapping[str, str | None] | None = None) -> None:
        """Make the folder if need be and write the recipe, so that the run can be resumed from now on.

        `start` says what the run begins with; the first word on that stays.
        """
        try:
            self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            self.write_text(RECIPE, recipe)
            if start is not None and not (self.path / START).is_file():
                self.write_json(START, start)
        except OSError as error:
            raise self._unusable(error) from error

    def discard(self) -> None:
        """Undo `create` and all that was written since, unless the run was resumed."""
        if self.resume:
            return
        for entry in self.path.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for folder in self._made:
            if not any(folder.iterdir()):
                folder.rmdir()

    @property
    def checkpoints(self) -> Path:
        """Where `motet.checkpoint` saves."""
        return self.path / "checkpoints"

    @property
    def began(self) -> bool:
        """Whether a step of the run is done."""
        return (self.path / METRICS).is_file() and (self.path / METRICS).stat().st_size > 0

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all."""
        target = self.path / name
        partial = target.with_suffix(target.suffix + ".partial")
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, target)

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file whole or not at all."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the run, None if it was not written yet."""
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def append_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line of `metrics.jsonl`, in six significant digits; what is not finite becomes null."""
        rounded = {key: float(f"{value:.6g}") if math.isfinite(value) else None for key, value in metrics.items()}
        self.append_line(METRICS, {"step": step, **rounded})

    def append_line(self, name: str, value: Mapping[str, Any]) -> None:
        """One line of a JSONL file, flushed."""
        with (self.path / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(value) + "\n")

    def read_metrics(self) -> list[dict[str, Any]]:
        """All lines of `metrics.jsonl` that are whole: a run that was killed may leave a torn one at the end."""
        return self._read_lines(METRICS)

    def forget_steps_from(self, step: int) -> None:
        """Drop lines of steps that a resumed run is about to play again, and torn ones."""
        for name in (METRICS, FAILURES):
            if (self.path / name).is_file():
                kept = [line for line in self._read_lines(name) if line["step"] < step]
                self.write_text(name, "".join(json.dumps(line) + "\n" for line in kept))

    def _read_lines(self, name: str) -> list[dict[str, Any]]:
        path, lines = self.path / name, []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return lines

    def _unusable(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"The output folder {str(self.path)!r} cannot be used: {error.strerror or error}.",
            fix="give an --output in a folder that you may write to.",
        )
