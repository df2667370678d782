"""The run folder: everything that a run leaves behind, at fixed names.

recipe.yaml, start.json         the resolved recipe; digests of the weights that it starts from
.lock, .holder.json             held by the process that writes here, and which one that is
metrics.jsonl, failures.jsonl   a line per step; a line per failed trajectory
samples/                        picture grids (PNG) and texts (JSONL) of some steps
warnings.jsonl                  a line per warning about the rewards
checkpoints/                    step_NNNNNN folders that `from_pretrained` loads
before.json, before.png, after.png, summary.json    what the run achieved
"""

from __future__ import annotations

import errno
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from motet.core.atomic_files import append, sync, sync_folder, write_whole
from motet.core.errors import RunFolderError
from motet.report.run_lock import LOCK_FILES, Lock

RECIPE, START, METRICS, FAILURES = "recipe.yaml", "start.json", "metrics.jsonl", "failures.jsonl"
WARNINGS = "warnings.jsonl"


def metrics_line(step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
    """One line of `metrics.jsonl`, in six significant digits; what is not finite becomes null."""
    rounded = {key: float(f"{value:.6g}") if math.isfinite(value) else None for key, value in metrics.items()}
    return {"step": step, **rounded}


class RunFolder:
    """A run's folder. A new run takes an empty or absent one; a resumed run goes on in its own.

    Making the object only looks; `create` is the first to write. Raises RunFolderError for a folder that is in use,
    that holds no run to resume, or that cannot be written. One process at a time may write there: see `held`.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path, self.resume = path, resume
        self._made: list[Path] = []  # folders that `create` made, innermost first
        self._lock = Lock(path)
        if resume and not (path / RECIPE).is_file():
            raise RunFolderError(f"{str(path)!r} holds no run to resume.", fix="leave --resume out to start one there.")
        if not resume:
            self._refuse_used()

    @contextmanager
    def held(self) -> Iterator[None]:
        """While active no other process can write here, from now on or, for a new run, from `create` on.

        The system gives the folder up when this process ends, however it ends. Raises RunFolderError when another has
        it. It may be entered again inside.
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
        """Make the folder if need be and write the recipe, so that the run can be resumed from now on.

        `start` says what the run begins with; a resumed run keeps what it has. The recipe is what makes a folder a
        run's, so it comes last: a process killed before leaves a folder that a new run takes.
        """
        try:
            self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            for made in self._made:
                sync_folder(made.parent)
        except OSError as error:
            raise self._unusable(error) from error
        self._lock.take()
        if not self.resume:
            self._refuse_used()  # another process may have been first
        if start is not None and not (self.resume and (self.path / START).is_file()):
            self.write_json(START, start)
        self.write_text(RECIPE, recipe)

    def discard(self) -> None:
        """Undo `create` and all that was written since, unless the run was resumed."""
        if self.resume:
            return
        for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name in (RECIPE, *LOCK_FILES)):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for folder in self._made:
            if not any(folder.iterdir()):
                folder.rmdir()

    @property
    def checkpoints(self) -> Path:
        """Where `motet.training.checkpoint` saves."""
        return self.path / "checkpoints"

    @property
    def began(self) -> bool:
        """Whether a step of the run is done."""
        return (self.path / METRICS).is_file() and (self.path / METRICS).stat().st_size > 0

    def write_text(self, name: str, text: str) -> None:
        """Write a file whole or not at all, synced to the disk. Raises RunFolderError."""
        with self._writing(name):
            write_whole(self.path / name, text.encode("utf-8"))

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file whole or not at all, synced to the disk. Raises RunFolderError."""
        self.write_text(name, json.dumps(value, indent=2) + "\n")

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the run, None if it was not written yet."""
        path = self.path / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def append_line(self, name: str, value: Mapping[str, Any]) -> None:
        """One line of a JSONL file, whole or not at all. Raises RunFolderError."""
        with self._writing(name):
            append(self.path / name, (json.dumps(value) + "\n").encode("utf-8"))

    def sync_lines(self) -> None:
        """See that the lines of the steps so far are on the disk, before a checkpoint of them is."""
        for name in (METRICS, FAILURES):
            if (self.path / name).is_file():
                with self._writing(name):
                    sync(self.path / name)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All lines of `metrics.jsonl` that are whole: a run that was killed may leave a torn one at the end."""
        return self._read_lines(METRICS)

    def truncate_metrics(self, step: int) -> None:
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

    def _refuse_used(self) -> None:
        try:
            exists, is_folder = self.path.exists(), self.path.is_dir()
            names = [entry.name for entry in self.path.iterdir()] if is_folder else []
        except OSError as error:
            raise self._unusable(error) from error
        if (exists and not is_folder) or any(not _is_left(name) for name in names):
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
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise RunFolderError(
                f"{str(self.path / name)!r} cannot be written: {error.strerror or error}.",
                fix="free some space there." if full else "see that the folder is there and that you may write to it.",
            ) from error

    def _unusable(self, error: OSError) -> RunFolderError:
        return RunFolderError(
            f"The output folder {str(self.path)!r} cannot be used: {error.strerror or error}.",
            fix="give an --output in a folder that you may write to.",
        )


def _is_left(name: str) -> bool:
    """Whether a file is what a process leaves that is killed before it has written the recipe."""
    return name in (START, *LOCK_FILES) or name.endswith(".partial")
