"""The run folder: everything that a run writes, under fixed names.

recipe.yaml, start.json         the resolved recipe; digests of the weights that it starts from
.lock, .holder.json             the lock of the process that writes here; its pid and host
metrics.jsonl, failures.jsonl   a line per step; a line per failed trajectory
samples/                        image grids (PNG) and texts (JSONL) of some steps
rollouts/, fixed_prompts/       best and worst rollouts, and the same prompts, of some steps (JSON, WebP)
warnings.jsonl                  a line per warning about the rewards
versions.jsonl                  the versions of motet and its libraries, at the start and where a resume changed them
tensorboard/, wandb/            what these trackers write (`run.report_to`)
trackers.json                   under which id each tracker knows the run (`motet.report.tracker_ids`)
checkpoints/                    step_NNNNNN folders that `from_pretrained` loads
before.json, before.png, after.png, summary.json    evaluation before and after training
report.html, failure.json       the report, and the error of a run that failed
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from motet.core.atomic_files import append, sync, sync_folder, write_atomic
from motet.core.errors import RunFolderError
from motet.core.write_errors import write_error
from motet.report.run_lock import LOCK_FILES, Lock

RECIPE, START, METRICS, FAILURES = "recipe.yaml", "start.json", "metrics.jsonl", "failures.jsonl"
WARNINGS = "warnings.jsonl"


def metrics_line(step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    """One line of `metrics.jsonl`: values to six significant digits, null if not finite."""
    rounded = {key: float(f"{value:.6g}") if math.isfinite(value) else None for key, value in metrics.items()}
    return {"step": step, **rounded}


class RunFolder:
    """The folder of a run: empty or absent for a new run, its own for a resumed one.

    The constructor only reads; `create` is the first to write. Raises RunFolderError if the folder is in use, does not
    contain a run to resume, or cannot be written. One process at a time may write to it: see `held`.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path, self.resume = path, resume
        self._created: list[Path] = []  # folders that `create` made, innermost first
        self._lock = Lock(path)
        if resume and not (path / RECIPE).is_file():
            raise RunFolderError(
                f"{str(path)!r} does not contain a run to resume.", fix="leave out --resume to start one there."
            )
        if not resume:
            self._check_unused()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the folder in the `with` block: now if the run is resumed, from `create` on if it is new.

        The system releases the lock when this process ends, however it ends. May be nested. Raises RunFolderError if
        another process holds the lock.
        """
        already = self._lock.held
        if self.resume:
            self._lock.take()
        try:
            yield
        finally:
            if not already:
                self._lock.release()

    def create(self, recipe: str, start: Mapping[str, str | None] | None = None) -> None:
        """Make the folder if needed and write the recipe, so that the run can be resumed from now on.

        `start`: digests of the starting weights; a resumed run keeps those it has. The recipe marks a folder as a
        run's, so it is written last: a process killed before leaves a folder that a new run accepts.
        """
        try:
            self._created = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            for created in self._created:
                sync_folder(created.parent)
        except OSError as error:
            raise self._unusable(error) from error
        self._lock.take()
        if not self.resume:
            self._check_unused()  # another process may have started a run since
        if start is not None and not (self.resume and (self.path / START).is_file()):
            self.write_json(START, start)
        self.write_text(RECIPE, recipe)

    def remove_if_new(self) -> None:
        """Remove what `create` made and all that was written since, unless the run was resumed."""
        if self.resume:
            return
        for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name in (RECIPE, *LOCK_FILES)):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for folder in self._created:
            if not any(folder.iterdir()):
                folder.rmdir()

    @property
    def checkpoints(self) -> Path:
        """Where `motet.training.checkpoint` saves."""
        return self.path / "checkpoints"

    @property
    def has_started(self) -> bool:
        """Whether the run has finished a step."""
        return (self.path / METRICS).is_file() and (self.path / METRICS).stat().st_size > 0

    def write_text(self, name: str, text: str) -> None:
        """Write a file atomically and sync it to disk. Raises RunFolderError."""
        with self._writing(name):
            write_atomic(self.path / name, text.encode("utf-8"))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file atomically and sync it to disk. Raises RunFolderError."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the run; None if it does not exist yet."""
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def append_line(self, name: str, value: Mapping[str, Any]) -> None:
        """Append one line to a JSONL file; a failed write leaves no partial line. Raises RunFolderError."""
        with self._writing(name):
            append(self.path / name, (json.dumps(value) + "\n").encode("utf-8"))

    def sync_lines(self) -> None:
        """Sync metrics and failures to disk; call it before saving a checkpoint of these steps."""
        for name in (METRICS, FAILURES):
            if (self.path / name).is_file():
                with self._writing(name):
                    sync(self.path / name)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All complete lines of `metrics.jsonl`; a killed run may leave an incomplete one at the end."""
        return self.read_lines(METRICS)

    def truncate_metrics(self, step: int) -> None:
        """Drop the lines of `step` and later, which a resumed run repeats, and incomplete lines; of warnings too.

        A warning from before the first step has step -1.
        """
        for name in (METRICS, FAILURES, WARNINGS):
            if (self.path / name).is_file():
                kept = [line for line in self.read_lines(name) if line.get("step", -1) < step]
                self.write_text(name, "".join(json.dumps(line) + "\n" for line in kept))

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """The complete lines of a JSONL file; none if it does not exist."""
        path, lines = self.path / name, []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
            try:
                lines.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return lines

    def _check_unused(self) -> None:
        try:
            exists, is_folder = self.path.exists(), self.path.is_dir()
            names = [entry.name for entry in self.path.iterdir()] if is_folder else []
        except OSError as error:
            raise self._unusable(error) from error
        if (exists and not is_folder) or any(not is_leftover(name) for name in names):
            raise RunFolderError(
                f"The output folder {str(self.path)!r} is already in use.",
                fix="add --resume to continue that run, or give another --output."
                if (self.path / RECIPE).is_file()
                else "give another --output.",
            )

    @contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise write_error(RunFolderError, repr(str(self.path / name)), error) from error

    def _unusable(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"The output folder {str(self.path)!r} cannot be used: {error.strerror or error}.",
            fix="choose an --output in a writable folder.",
        )


class FollowerFolder(RunFolder):
    """The run folder in a process that is not the main one: it reads what the main one writes, and writes nothing."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path, self.resume = path, resume

    @contextmanager
    def held(self) -> Iterator[None]:
        """The main process holds the lock."""
        yield

    def create(self, recipe: str, start: Mapping[str, str | None] | None = None) -> None:
        """The main process does."""

    def remove_if_new(self) -> None:
        """The main process does."""

    def write_text(self, name: str, text: str) -> None:
        """The main process does."""

    def append_line(self, name: str, value: Mapping[str, Any]) -> None:
        """The main process does."""

    def sync_lines(self) -> None:
        """The main process does."""


def is_leftover(name: str) -> bool:
    """Whether a process killed before it wrote the recipe may have left a file of this name."""

    return name in (START, *LOCK_FILES) or name.endswith(".partial")
