"""From a prompt that a person typed back to its spec, so that the verifier can score the image."""

from __future__ import annotations

import re
from itertools import combinations

from motet.shapes.prompts import PHRASES, Spec
from motet.shapes.scene import COLOURS, NUMBERS, RELATIONS, SHAPES

_GROUP = re.compile(
    rf"(?P<count>a|{'|'.join(NUMBERS[1:])}) (?:(?P<colour>{'|'.join(COLOURS)}) )?(?P<shape>{'|'.join(SHAPES)})(?:e?s)?"
)
_RELATION = re.compile(rf" ({'|'.join(RELATIONS)}) ")


def parse_prompt(text: str, grid: int = 4) -> Spec | None:
    """The spec of a prompt as `motet.shapes.prompts.prompt_text` writes it, with any of `PHRASES` before it.

    Case, spaces and a final full stop do not matter. None for any other text, and where objects of one group could
    belong to another, which the verifier cannot count.
    """
    plain = " ".join(text.lower().split()).removesuffix(".")
    opening = max((phrase for phrase in PHRASES if plain.startswith(phrase)), key=len)
    first, *related = _RELATION.split(plain.removeprefix(opening))
    parts = [first, related[1]] if len(related) == 2 else first.split(" and ") if not related else []
    matches = [match for part in parts if (match := _GROUP.fullmatch(part))]
    groups = [
        {"count": NUMBERS.index(m["count"]) if m["count"] != "a" else 1, "shape": m["shape"], "colour": m["colour"]}
        for m in matches
    ]
    overlap = any(
        one["shape"] == other["shape"]
        and (None in (one["colour"], other["colour"]) or one["colour"] == other["colour"])
        for one, other in combinations(groups, 2)
    )
    several = any(group["count"] > 1 for group in groups)
    if not groups or len(groups) < len(parts) or overlap or (related and several):
        return None
    relation = related[0] if related else None
    return {"category": _category(groups, relation), "grid": grid, "groups": groups, "relation": relation}


def _category(groups: list[dict[str, object]], relation: str | None) -> str:
    coloured = any(group["colour"] for group in groups)
    if relation is not None:
        return "position"
    if len(groups) == 1:
        return "counting" if groups[0]["count"] != 1 else "colours" if coloured else "single"
    return "colour attribution" if coloured else "two objects"
