"""Crash-safe file writes: write, sync to the disk, then rename. Imports no torch."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_FOLDERS_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF, errno.EPERM}
"""Errors of some network file systems and of Windows for opening or syncing a folder, which need no sync."""


def write_atomic(path: Path, content: bytes) -> None:
    """Write and sync a file completely or not at all. Raises OSError, and removes what was written."""
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def append(path: Path, content: bytes) -> None:
    """Append all of `content` to a file or nothing. Raises OSError. Not synced: see `sync`."""
    with path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            remaining = memoryview(content)
            while remaining:
                remaining = remaining[file.write(remaining) :]
        except BaseException:
            file.truncate(size)
            raise


def sync(path: Path) -> None:
    """Sync the content of a file to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Sync the entries of a folder to the disk: files created, renamed or removed there."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in _FOLDERS_CANNOT_SYNC:
            raise


def sync_tree(folder: Path) -> None:
    """Sync everything below a folder to the disk, files before their folders."""
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(place) / name)
        sync_folder(Path(place))
