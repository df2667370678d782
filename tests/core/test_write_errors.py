"""A file that cannot be written: the message names the cause, and the fix is that of the cause."""

import errno
import os

import pytest

from motet.core.errors import CheckpointError
from motet.core.write_errors import write_error


@pytest.mark.parametrize(
    ("error", "cause", "fix"),
    [
        (OSError(errno.ENOSPC, "full"), "No space left on device", "free some disk space there."),
        (PermissionError(errno.EACCES, "no"), "Permission denied", "give this user the permission to write there"),
        (FileNotFoundError(errno.ENOENT, "gone"), "No such file or directory", "create the folder again"),
        (OSError(errno.EROFS, "fixed"), "Read-only file system", "choose a folder on a file system that is not"),
        (NotADirectoryError(errno.ENOTDIR, "file"), "Not a directory", "a part of this path is a file"),
        (RuntimeError("I/O error: full (os error 28)"), "No space left on device", "free some disk space there."),
        (OSError("no number"), "OSError: no number", "check the disk, or choose another folder."),
    ],
)
def test_the_cause_of_a_failed_write_and_its_fix(error, cause, fix):
    told = write_error(CheckpointError, "'out'", error)
    assert told.problem == f"'out' cannot be written: {cause}."
    assert fix in told.fix


def test_the_cause_of_a_wrapped_error():
    error = RuntimeError("it failed")
    error.__cause__ = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert write_error(CheckpointError, "'out'", error).fix == "free some disk space there."
