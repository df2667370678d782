"""A file lock, so that one process at a time writes to a run folder, and a record of who holds it."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from motet.core.atomic_files import write_atomic
from motet.core.errors import RunFolderError

LOCK, HOLDER = ".lock", ".holder.json"
LOCK_FILES = (LOCK, HOLDER)
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)
"""Errors of file systems without locks, such as Lustre without the flock option or NFS without its lock daemon."""


@contextmanager
def held_output(folder: Path) -> Iterator[None]:
    """Make the output folder of several runs if needed, and hold its lock in the `with` block. Raises RunFolderError.

    The runs below have locks of their own; this one is held between them too, when no run is active.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(
            f"The output folder {str(folder)!r} cannot be used: {error.strerror or error}.",
            fix="choose an --output in a writable folder.",
        ) from error
    lock = Lock(folder)
    lock.take()
    try:
        yield
    finally:
        lock.release()
        if is_new and [entry.name for entry in folder.iterdir()] == [LOCK]:  # no run was started
            (folder / LOCK).unlink()
            folder.rmdir()


class Lock:
    """The lock of a folder. The operating system releases it when the process ends, killed or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(str(folder / LOCK), timeout=0)

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._lock.is_locked

    def take(self) -> None:
        """Take the lock if this object does not hold it. Raises RunFolderError, naming the holder, if another does."""
        if self.held:
            return
        try:
            self._lock.acquire()
        except Timeout:
            raise RunFolderError(
                f"The run folder {str(self.folder)!r} is in use by another process{self._describe_holder()}.",
                fix="wait for that process to end, stop it, or choose another --output.",
            ) from None
        except (NotImplementedError, OSError) as error:
            if isinstance(error, NotImplementedError) or error.errno in NO_LOCKS:
                text = (
                    f"The file system of {str(self.folder)!r} does not support locks: do not start a second run there."
                )
                warnings.warn(text, stacklevel=2)
                return
            raise RunFolderError(
                f"The run folder {str(self.folder)!r} cannot be locked: {error.strerror or error}.",
                fix="choose an --output in a writable folder.",
            ) from error
        about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        try:
            write_atomic(self.folder / HOLDER, json.dumps(about).encode())
        except OSError:  # for example a full disk: the lock works without this file
            (self.folder / HOLDER).unlink(missing_ok=True)

    def release(self) -> None:
        """Release the lock if this object holds it."""

        if self.held:
            (self.folder / HOLDER).unlink(missing_ok=True)
            self._lock.release()

    def _describe_holder(self) -> str:
        try:
            about = json.loads((self.folder / HOLDER).read_text(encoding="utf-8"))
            return f": pid {about['pid']} on {about['host']}, since {about['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return ""
