"""Tensors in a folder of safetensors, through torch's distributed checkpoint: each process writes what it holds.

Files say where in the whole tensor their part lies, so a folder is read by any number of processes, each its own part,
and by one without a process group. No pickle.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motet.core.errors import CheckpointError, ConfigError
from motet.core.registry import first_line

_NEEDED_TORCH = (2, 9)
"""FSDP2 with sums in place of means is in 2.8, safetensors written by several processes in 2.9."""


def save_sharded(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a folder of files; all processes call it with tensors of the same names. Raises CheckpointError."""
    checkpoint = _library()
    writer = checkpoint.HuggingFaceStorageWriter(path=str(folder), save_distributed=True)
    with _as_checkpoint_error(folder, "written", "free some space there, or make it writable."):
        checkpoint.save(dict(tensors), storage_writer=writer)


def sizes_in(folder: Path) -> dict[str, torch.Size]:
    """The tensors of all safetensors files in a folder and their whole sizes. Raises CheckpointError."""
    reader = _library().HuggingFaceStorageReader(path=str(folder))
    with _as_checkpoint_error(folder, "read", "restore its files."):
        return {name: stored.size for name, stored in reader.read_metadata().state_dict_metadata.items()}


def load_sharded(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill tensors in place from the files of a folder, of sharded ones the part of this process; without collectives.

    Raises CheckpointError.
    """
    checkpoint = _library()
    reader = checkpoint.HuggingFaceStorageReader(path=str(folder))
    with _as_checkpoint_error(folder, "read", "restore its files."), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # each reads its own part
        checkpoint.load(dict(tensors), storage_reader=reader, no_dist=True)


def require_torch(what: str) -> None:
    """Raise ConfigError where torch is too old for sharded weights and their files."""
    major, minor = (int(part) for part in torch.__version__.split(".")[:2])
    if (major, minor) < _NEEDED_TORCH:
        raise ConfigError(
            f"{what} needs torch {'.'.join(map(str, _NEEDED_TORCH))}; this is torch {torch.__version__}.",
            fix="install a newer torch, or train with --parallel replicas.",
        )


def _library() -> Any:
    from torch.distributed import checkpoint  # a moment to import, and only where there are shards

    require_torch("A checkpoint in shards")
    return checkpoint


@contextmanager
def _as_checkpoint_error(folder: Path, verb: str, fix: str) -> Iterator[None]:
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except (Exception, CheckpointException) as error:  # the latter, of several processes, is not an Exception
        raise CheckpointError(f"{str(folder)!r} cannot be {verb}: {first_line(error)}", fix=fix) from error
