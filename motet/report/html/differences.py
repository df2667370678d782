"""What differs between the recipes of several runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

ABSENT = "–"


def recipe_differences(recipes: Sequence[Mapping[str, Any]], hide: Callable[[str], str]) -> list[tuple[str, list[str]]]:
    """Dotted keys whose values differ between recipes, and the value in each of them; descriptions are left out.

    Empty for a single recipe, or where one could not be read. `hide` replaces secrets in a text `key: value`.
    """
    if len(recipes) < 2 or not all(recipes):
        return []
    flat = [dict(_flatten(one, "")) for one in recipes]
    keys = dict.fromkeys(key for one in flat for key in one if key != "description")
    rows = [(key, [one.get(key, ABSENT) for one in flat]) for key in keys]
    return [
        (key, [hide(f"{key}: {value}").removeprefix(f"{key}: ") for value in values])
        for key, values in rows
        if len(set(values)) > 1
    ]


def _flatten(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _flatten(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
