"""Names that are a path here or an id on the hub: what is neither is refused at once.

The loaders of transformers, diffusers and datasets try an unreachable hub six times, for 25 seconds. Imports no torch.
"""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from motet.core.registry import first_line

_PART = r"[A-Za-z0-9](?:[\w.-]*\w)?"
_FORM = {"model": re.compile(rf"{_PART}/{_PART}"), "dataset": re.compile(rf"(?:{_PART}/)?{_PART}")}
_TIMEOUT = 5.0
"""Seconds for the one question to the hub whether it has an id."""


def why_missing(source: str, what: str, kind: Literal["model", "dataset"] = "model") -> str | None:
    """Why there is no `what` under a name, as a sentence; None where something is.

    What exists here is a path; so is what has not the form of a hub id, and what has a near name in a folder that
    exists. Everything else is looked up in the hub's cache, and then on the hub: one request without retries.
    """
    path = Path(source).expanduser()
    if os.path.exists(path):
        return None
    near = near_path(path)
    hint = f" Did you mean {near!r}?" if near else ""
    mistyped = near is not None and len(path.parts) > 1 and os.path.isdir(path.parent)
    if not _FORM[kind].fullmatch(source) or (mistyped and not _is_cached(source, kind)):
        return f"There is no {what} at {source!r}.{hint}"
    problem = None if _is_cached(source, kind) else _ask_hub(source, kind)
    return problem and f"{source!r} is not a folder here, and the hub does not have it: {problem}.{hint}"


def near_path(path: Path) -> str | None:
    """The path that exists and is spelt most like one that does not, part by part; None when nothing comes close."""
    found = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        if not os.path.lexists(found / part):
            try:
                names = os.listdir(found)
            except OSError:
                return None
            close = get_close_matches(part, names, n=1)
            if not close:
                return None
            part = close[0]
        found /= part
    return str(found)


def _is_cached(source: str, kind: str) -> bool:
    from huggingface_hub import constants

    return os.path.isdir(os.path.join(constants.HF_HUB_CACHE, f"{kind}s--{source.replace('/', '--')}", "snapshots"))


def _ask_hub(source: str, kind: str) -> str | None:
    """Why the hub does not give an id; None when it has it."""
    from huggingface_hub import HfApi

    try:
        HfApi().repo_info(source, repo_type=kind, timeout=_TIMEOUT)
    except Exception as error:  # no such repository, no access, no network: the hub client has a kind for each
        return first_line(error).rstrip(".")
    return None
