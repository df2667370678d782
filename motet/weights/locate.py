"""Locate and verify checkpoints: the checkpoints of a run, their checksums, a digest of weights. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

from motet.core.errors import CheckpointError

CONFIG, LEARNER, MERGED, TRAINER_STATE = "config.json", "learner.safetensors", "merged", "trainer_state.json"
ROLLOUT_WEIGHTS = "rollout_weights.safetensors"
"""Older weights, of rollouts that were under way (`--max-staleness`)."""
RANDOM_STATE = "random_state.json"
"""The global random generators of every process."""
LEARNER_SHARDS = "learner"
"""The folder in place of `LEARNER` where several processes wrote it, each its shards."""
CHECKSUMS = "SHA256SUMS"
"""Checksums of a checkpoint's files, in the format of `sha256sum -c`."""
BEST = "best.json"
"""The file among a run's checkpoints that names the best one, which is kept (the callback `best_checkpoint`)."""
_CONFIGS = (CONFIG, "adapter_config.json", "model_index.json")
_NAME = re.compile(r"step_(\d+)")
_BLOCK, _BLOCKS = 4096, 64


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    folders = [path for path in folder.glob("step_*") if _NAME.fullmatch(path.name)]
    return [path for path in sorted(folders, key=step_of) if (path / TRAINER_STATE).is_file()]


def step_of(checkpoint: Path) -> int:
    """The training step in a checkpoint's name; -1 for any other folder."""
    match = _NAME.fullmatch(checkpoint.name)
    return -1 if match is None else int(match[1])


def checkpoint_name(step: int) -> str:
    """The name of the checkpoint of a training step."""
    return f"step_{step:06d}"


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in a folder; None if there is none."""
    complete = checkpoints(folder)
    return complete[-1] if complete else None


def best_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that `best.json` in the folder of checkpoints names; None without one."""
    try:
        name = json.loads((folder / BEST).read_text(encoding="utf-8"))["checkpoint"]
    except (OSError, ValueError, KeyError):
        return None
    return folder / str(name)


def write_checksums(folder: Path) -> None:
    """Write `folder/SHA256SUMS` with the checksums of all files below the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    lines = [f"{_sha256(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    (folder / CHECKSUMS).write_text("".join(lines), encoding="utf-8")


def find_damage(folder: Path) -> str | None:
    """The first file of a checkpoint that is missing or damaged, in words; None if none is or without checksums."""
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        for line in lines:
            digest, _, name = line.partition("  ")
            if not (folder / name).is_file():
                return f"{name or CHECKSUMS} is missing"
            if _sha256(folder / name) != digest:
                return f"{name} is damaged (its checksum is not the one in {CHECKSUMS})"
    except FileNotFoundError:
        return None  # a checkpoint saved without checksums
    except (OSError, ValueError) as error:
        return f"{CHECKSUMS} cannot be checked ({error})"
    return None if lines else f"{CHECKSUMS} is empty"


def check_undamaged(folder: Path) -> None:
    """Raise CheckpointError if a file of a checkpoint is missing or damaged, naming the last intact checkpoint."""
    problem = find_damage(folder)
    if problem is not None:
        earlier = [path for path in checkpoints(folder.parent) if step_of(path) < step_of(folder)]
        intact = next((path for path in reversed(earlier) if find_damage(path) is None), None)
        other = "start a new run" if intact is None else f"delete that folder to resume from {intact.name}"
        raise CheckpointError(f"{str(folder)!r} cannot be resumed: {problem}.", fix=f"restore the file, or {other}.")


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def resolve_checkpoint(path: str | Path) -> str:
    """The newest checkpoint of a run folder, or the result of its merge; any other path or id unchanged."""
    if not os.path.isdir(path):
        return str(path)
    folder = Path(path)
    merged = folder / MERGED
    weights = latest_checkpoint(folder / "checkpoints") or (merged if (merged / CONFIG).is_file() else None)
    return str(weights or path)


def weights_digest(path: str | Path) -> str | None:
    """`weights 3f9a...`: equal for equal weights and configs in any folder; None for a folder without weights.

    A run folder stands for its newest checkpoint. The digest covers the name and size of each file and 64 blocks of
    4096 bytes spread over it, which differ between any two trained models, so that large files take no longer.
    """

    folder = Path(resolve_checkpoint(path))
    files = sorted(folder.rglob("*.safetensors")) if folder.is_dir() else []
    files = [
        file for file in files if file.name not in (LEARNER, ROLLOUT_WEIGHTS) and file.parent.name != LEARNER_SHARDS
    ]
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
