"""One process at a time writes to a run folder: a file lock that ends with its process, and who holds it."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
import warnings
from pathlib import Path

from filelock import FileLock, Timeout

from motet.core.atomic_files import write_whole
from motet.core.errors import RunFolderError

LOCK, HOLDER = ".lock", ".holder.json"
LOCK_FILES = (LOCK, HOLDER)
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP)
"""What file systems without locks answer: Lustre without the option, NFS without its lock daemon."""


class Lock:
    """The lock of a folder. The operating system releases it when the process ends, killed or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = FileLock(str(folder / LOCK), timeout=0)

    @property
    def held(self) -> bool:
        """Whether this object has it."""
        return self._lock.is_locked

    def take(self) -> None:
        """Take the lock unless this object has it. Raises RunFolderError, naming the holder, when another has it."""
        if self.held:
            return
        try:
            self._lock.acquire()
        except Timeout:
            raise RunFolderError(
                f"The run folder {str(self.folder)!r} is in use by another process{self._holder()}.",
                fix="wait for it or stop it, or give another --output.",
            ) from None
        except (NotImplementedError, OSError) as error:
            if isinstance(error, NotImplementedError) or error.errno in NO_LOCKS:
                text = f"The file system of {str(self.folder)!r} has no locks: do not start a second run there."
                warnings.warn(text, stacklevel=2)
                return
            raise RunFolderError(
                f"The run folder {str(self.folder)!r} cannot be locked: {error.strerror or error}.",
                fix="give an --output in a folder that you may write to.",
            ) from error
        about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        try:
            write_whole(self.folder / HOLDER, json.dumps(about).encode())
        except OSError:  # a full disk: the lock holds without it
            (self.folder / HOLDER).unlink(missing_ok=True)

    def release(self) -> None:
        """Give the lock back."""
        if self.held:
            (self.folder / HOLDER).unlink(missing_ok=True)
            self._lock.release()

    def _holder(self) -> str:
        try:
            about = json.loads((self.folder / HOLDER).read_text(encoding="utf-8"))
            return f": pid {about['pid']} on {about['host']}, since {about['since']}"
        except (OSError, ValueError, KeyError, TypeError):
            return ""
