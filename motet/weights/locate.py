"""What is saved on disk: the checkpoints of a run, their checksums, and a digest of weights. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

from motet.core.errors import CheckpointError

CONFIG, LEARNER, MERGED, TRAINER_STATE = "config.json", "learner.safetensors", "merged", "trainer_state.json"
SUMS = "SHA256SUMS"
"""Checksums of a checkpoint's files, as `sha256sum -c` reads them."""
_CONFIGS = (CONFIG, "adapter_config.json", "model_index.json")
_NAME = re.compile(r"step_(\d+)")
_BLOCK, _BLOCKS = 4096, 64


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    found = [path for path in folder.glob("step_*") if _NAME.fullmatch(path.name)]
    return [path for path in sorted(found, key=step_of) if (path / TRAINER_STATE).is_file()]


def step_of(checkpoint: Path) -> int:
    """How many steps a checkpoint of a run has been trained for, by its name; -1 for any other folder."""
    match = _NAME.fullmatch(checkpoint.name)
    return -1 if match is None else int(match[1])


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in a folder, None if there is none."""
    found = checkpoints(folder)
    return found[-1] if found else None


def write_sums(folder: Path) -> None:
    """Write `folder/SHA256SUMS` over all files below it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS)
    lines = [f"{_sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def damage(folder: Path) -> str | None:
    """What of a checkpoint is not as it was saved, in words; None where nothing is, or where no checksums lie."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        for line in lines:
            digest, _, name = line.partition("  ")
            if not (folder / name).is_file():
                return f"{name or SUMS} is missing"
            if _sha256(folder / name) != digest:
                return f"{name} is damaged (its checksum is not the one in {SUMS})"
    except FileNotFoundError:
        return None  # saved before there were checksums
    except (OSError, ValueError) as error:
        return f"{SUMS} cannot be checked ({error})"
    return None if lines else f"{SUMS} is empty"


def refuse_damage(folder: Path) -> None:
    """Raise CheckpointError when a file of a checkpoint is not as it was saved; it names the last sound one before."""
    found = damage(folder)
    if found is not None:
        before = [path for path in checkpoints(folder.parent) if step_of(path) < step_of(folder)]
        sound = next((path for path in reversed(before) if damage(path) is None), None)
        ways = "start the run again" if sound is None else f"delete that folder to resume from {sound.name}"
        raise CheckpointError(f"{str(folder)!r} cannot be resumed: {found}.", fix=f"restore the file, or {ways}.")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def resolve_checkpoint(path: str | Path) -> str:
    """The weights that a run folder ends with: its newest checkpoint, or what its merge made.

    Anything else, as it is written, is a checkpoint or hub id itself.
    """
    if not os.path.isdir(path):
        return str(path)
    folder = Path(path)
    merged = folder / MERGED
    own = latest_checkpoint(folder / "checkpoints") or (merged if (merged / CONFIG).is_file() else None)
    return str(own or path)


def weights_digest(path: str | Path) -> str | None:
    """`weights 3f9a...`: the same for the same weights and configs wherever they lie; None where no weights lie.

    A run folder stands for its newest checkpoint. Of each file it takes name, size, and 64 blocks from its first to its
    last: no two trainings agree on them, and 15 GB are read as fast as 15 MB.
    """
    folder = Path(resolve_checkpoint(path))
    files = sorted(file for file in folder.rglob("*.safetensors") if file.name != LEARNER) if folder.is_dir() else []
    if not files:
        return None
    digest = hashlib.sha256()
    for config in sorted(file for name in _CONFIGS for file in folder.rglob(name)):
        digest.update(json.dumps([config.relative_to(folder).as_posix(), config.read_text(encoding="utf-8")]).encode())
    for file in files:
        size = file.stat().st_size
        digest.update(json.dumps([file.relative_to(folder).as_posix(), size]).encode())
        with file.open("rb") as weights:
            for block in range(_BLOCKS):
                weights.seek(block * max(0, size - _BLOCK) // (_BLOCKS - 1))
                digest.update(weights.read(_BLOCK))
    return f"weights {digest.hexdigest()[:12]}"
