"""`trackers.json` of a run folder: under which id each tracker knows the run, so that a resumed run goes on there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from motet.core.atomic_files import write_atomic

TRACKERS = "trackers.json"


def read_tracker_ids(folder: Path) -> dict[str, Any]:
    """Tracker -> what it knows the run by; empty for a new run, and where the file cannot be read."""
    try:
        content = json.loads((folder / TRACKERS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_tracker_id(folder: Path, tracker: str, value: Any) -> None:
    """Note the id (anything JSON can hold) of one tracker beside those of others, and sync it. Raises OSError."""
    content = {**read_tracker_ids(folder), tracker: value}
    write_atomic(folder / TRACKERS, (json.dumps(content, indent=2) + "\n").encode("utf-8"))
