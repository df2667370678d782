"""`versions.jsonl`: which versions of motet and of the libraries below it wrote a run, from which step on."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from motet.report.run_dir import RunFolder

VERSIONS = "versions.jsonl"
LIBRARIES = ("motet", "torch", "transformers")


def record_versions(folder: RunFolder, step: int) -> None:
    """Append this process's versions, with which the run goes on after `step` steps, unless they are the last ones."""
    now = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
    before = folder.read_lines(VERSIONS)
    if not before or {**before[-1], "step": step} != {"step": step, **now}:
        folder.append_line(VERSIONS, {"step": step, **now})


def describe_versions(lines: Sequence[Mapping[str, Any]], name: str) -> str:
    """`0.1.0`; `0.1.0, 0.2.0 from step 20` where it changed; nothing where it is not known."""
    shown, last = list[str](), None
    for line in lines:
        if (found := line.get(name)) is not None and found != last:
            shown.append(f"{found} from step {line.get('step')}" if shown else str(found))
            last = found
    return ", ".join(shown)
