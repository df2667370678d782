"""Check whether a name is a local path or an id on the Hugging Face Hub before a library tries to load it.

The loaders of transformers, diffusers and datasets retry an unreachable hub six times, for 25 seconds. Imports no
torch.
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
"""Timeout in seconds of the request to the hub."""


def missing_reason(source: str, what: str, kind: Literal["model", "dataset"] = "model") -> str | None:
    """A sentence saying why `source` names no `what`; None if it exists.

    `source` counts as a path if it exists, if it does not have the form of a hub id, or if its folder holds a similar
    name. Anything else is looked up in the hub's cache and then on the hub, with one request and no retries.
    """
    path = Path(source).expanduser()
    if os.path.exists(path):
        return None
    closest = closest_path(path)
    hint = f" Did you mean {closest!r}?" if closest else ""
    mistyped = closest is not None and len(path.parts) > 1 and os.path.isdir(path.parent)
    if not _FORM[kind].fullmatch(source) or (mistyped and not _is_cached(source, kind)):
        return f"There is no {what} at {source!r}.{hint}"
    problem = None if _is_cached(source, kind) else _ask_hub(source, kind)
    return problem and f"{source!r} is not a local folder, and could not be found on the Hub: {problem}.{hint}"


def closest_path(path: Path) -> str | None:
    """The existing path whose parts are spelt most like those of a missing one; None if nothing is similar."""
    existing = Path(path.anchor)
    for part in path.parts[1:] if path.anchor else path.parts:
        if not os.path.lexists(existing / part):
            try:
                names = os.listdir(existing)
            except OSError:
                return None
            matches = get_close_matches(part, names, n=1)
            if not matches:
                return None
            part = matches[0]
        existing /= part
    return str(existing)


def _is_cached(source: str, kind: str) -> bool:
    from huggingface_hub import constants

    return os.path.isdir(os.path.join(constants.HF_HUB_CACHE, f"{kind}s--{source.replace('/', '--')}", "snapshots"))


def _ask_hub(source: str, kind: str) -> str | None:
    """Why the hub does not provide a repository; None if it does."""
    from huggingface_hub import HfApi

    try:
        HfApi().repo_info(source, repo_type=kind, timeout=_TIMEOUT)
    except Exception as error:  # no such repository, no access, no network: the hub client has a class for each
        return first_line(error).rstrip(".")
    return None
