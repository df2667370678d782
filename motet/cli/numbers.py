"""The file of `--json`: numbers as valid JSON, for other programs."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def write_numbers(path: Path | None, numbers: Any) -> None:
    """Write a command's numbers, the folder made if needed; None: nobody asked for them.

    JSON has no NaN: what is not known (a correlation with a constant) is null.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_known(numbers), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_known(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
