"""What is saved on disk: the checkpoints of a run, and a digest of the weights in a folder. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

CONFIG, LEARNER, MERGED, TRAINER_STATE = "config.json", "learner.safetensors", "merged", "trainer_state.json"
_CONFIGS = (CONFIG, "adapter_config.json", "model_index.json")
_NAME = re.compile(r"step_(\d+)")
_BLOCK, _BLOCKS = 4096, 64


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, oldest first."""
    found = [(int(match[1]), path) for path in folder.glob("step_*") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found) if (path / TRAINER_STATE).is_file()]


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint in a folder, None if there is none."""
    found = checkpoints(folder)
    return found[-1] if found else None


def newest_of(path: str | Path) -> str:
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
    folder = Path(newest_of(path))
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
