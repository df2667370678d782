"""Files that survive a power cut: written, synced to the disk, and only then given their name. Imports no torch."""

from __future__ import annotations

import errno
import os
from pathlib import Path

_FOLDERS_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF, errno.EPERM}
"""What some network file systems, and Windows, answer when a folder is opened or synced; they order renames alone."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, on the disk when this returns. Raises OSError; nothing partial is left then."""
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
    """Add to the end of a file all of `content` or nothing. Raises OSError. Not synced: see `sync`."""
    with path.open("ab", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            left = memoryview(content)
            while left:
                left = left[file.write(left) :]
        except BaseException:
            file.truncate(size)
            raise


def sync(path: Path) -> None:
    """See that a file's content is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """See that the names in a folder are on the disk: files made, renamed or removed there."""
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
    """See that everything below a folder is on the disk, files before the folders that name them."""
    for place, _, files in os.walk(folder, topdown=False):
        for name in files:
            sync(Path(place) / name)
        sync_folder(Path(place))
