"""Which line of motet, or of its user, is running."""

from __future__ import annotations

import sys
import sysconfig
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_OWN = {__file__, str(Path(__file__).with_name("paper_gpu.py")), str(Path(__file__).with_name("paper_tensor.py"))}


def calling_line() -> str:
    """`file:line` of the innermost running line outside libraries: `motet/...`, or a path below the current folder."""
    frame = sys._getframe(1)
    while frame is not None:
        name = _shown(frame.f_code.co_filename)
        if name is not None:
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


@cache
def _shown(filename: str) -> str | None:
    """How a source file is shown; None for one of a library, of this tool, or without a file."""
    if filename in _OWN or filename.startswith("<"):
        return None
    path = Path(filename)
    if path.is_relative_to(_PACKAGE):
        return path.relative_to(_PACKAGE.parent).as_posix()
    if filename.startswith(_LIBRARIES):
        return None
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else filename
