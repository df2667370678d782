"""Why a file could not be written, and what to do about it. Imports no torch."""

from __future__ import annotations

import errno
import os
import re
from typing import TypeVar

from motet.core.errors import MotetError
from motet.core.registry import first_line

E = TypeVar("E", bound=MotetError)

_OF_RUST = re.compile(r"\(os error (\d+)\)")
"""How safetensors and tokenizers, which are written in Rust, end their messages."""
_FIXES = {
    errno.ENOSPC: "free some disk space there.",
    errno.EDQUOT: "remove files of this user there: the disk quota is used up.",
    errno.EFBIG: "choose a folder whose file system and limits (ulimit -f) allow larger files.",
    errno.EACCES: "give this user the permission to write there, or choose another folder.",
    errno.EPERM: "give this user the permission to write there, or choose another folder.",
    errno.EROFS: "choose a folder on a file system that is not read-only.",
    errno.ENOENT: "create the folder again, or choose another one.",
    errno.ENOTDIR: "choose a folder: a part of this path is a file.",
    errno.EISDIR: "choose another name: a folder has this one.",
    errno.EEXIST: "choose another name: a file has this one.",
    errno.ENAMETOOLONG: "choose a shorter name.",
}


def write_error(kind: type[E], what: str, error: BaseException) -> E:
    """`WHAT cannot be written: CAUSE.` with the fix for this cause: full disk, permission, missing folder, ..."""
    number = _number(error)
    cause = first_line(error) if number is None else os.strerror(number)
    fix = _FIXES.get(number or 0, "check the disk, or choose another folder.")
    return kind(f"{what} cannot be written: {cause.rstrip('.')}.", fix=fix)


def _number(error: BaseException) -> int | None:
    """The system's number of an error; of a library's error, that of its cause or of its message."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = _OF_RUST.search(str(error))
    if told is not None:
        return int(told.group(1))
    return None if error.__cause__ is None else _number(error.__cause__)
