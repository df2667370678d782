"""From a prompt that a person typed back to its spec, so that the verifier can score the image."""

from __future__ import annotations

import re
from itertools import combinations

from motet.shapes.large import vocabulary as large
from motet.shapes.large.prompts import groups_overlap
from motet.shapes.prompts import PHRASES, Spec
from motet.shapes.scene import COLOURS, NUMBERS, RELATIONS, SHAPES

_GROUP = re.compile(
    rf"(?P<count>a|{'|'.join(NUMBERS[1:])}) (?:(?P<colour>{'|'.join(COLOURS)}) )?(?P<shape>{'|'.join(SHAPES)})(?:e?s)?"
)
_RELATION = re.compile(rf" ({'|'.join(RELATIONS)}) ")
_COLOUR, _SHAPE = "|".join(large.COLOURS), "|".join(large.SHAPES)
_LARGE_GROUP = re.compile(
    rf"(?P<count>an?|{'|'.join(large.NUMBERS[1:])}) (?:(?P<size>{'|'.join(large.SIZES)}) )?"
    rf"(?:(?:(?P<colour>{_COLOUR}) )?(?P<shape>{_SHAPE})(?:e?s)?|(?P<colour_alone>{_COLOUR}) things?)"
)
_LARGE_RELATION = re.compile(rf" (?:that is )?({'|'.join(large.RELATIONS)}) ")
_KIND = rf"(?:({_COLOUR}) )?({_SHAPE})(?:e?s)?"
_MORE = re.compile(f"more {_KIND} than {_KIND}")
_NEGATION = re.compile(rf"({'|'.join(large.NUMBERS[2:])}) things and no (?:({_SHAPE})|({_COLOUR}) thing)s?")


def parse_prompt(text: str, grid: int = 4, world: str = "small") -> Spec | None:
    """The spec of a prompt as `prompt_text` of the world writes it, with any of `PHRASES` before it.

    Case, spaces and a final full stop do not matter. None for any other text, and where objects of one group could
    belong to another, which the verifier cannot count.
    """
    plain = " ".join(text.lower().split()).removesuffix(".")
    opening = max((phrase for phrase in PHRASES if plain.startswith(phrase)), key=len)
    plain = plain.removeprefix(opening)
    return _parse_large(plain, grid) if world == "large" else _parse_small(plain, grid)


def _parse_small(plain: str, grid: int) -> Spec | None:
    first, *related = _RELATION.split(plain)
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


def _parse_large(plain: str, grid: int) -> Spec | None:
    spec: Spec = {"category": "", "world": "large", "grid": grid, "groups": [], "relations": []}
    spec |= {"total": None, "absent": None, "more": None}
    if match := _NEGATION.fullmatch(plain):
        absent = {"shape": match[2], "colour": match[3]}
        return spec | {"category": "negation", "total": large.NUMBERS.index(match[1]), "absent": absent}
    if match := _MORE.fullmatch(plain):
        more = [{"shape": match[2], "colour": match[1]}, {"shape": match[4], "colour": match[3]}]
        return spec | {"category": "comparison", "more": more} if match[2] != match[4] else None
    first, *related = _LARGE_RELATION.split(plain)
    parts = [first, *related[1::2]] if related else re.split(", | and ", first)
    matches = [match for part in parts if (match := _LARGE_GROUP.fullmatch(part))]
    groups = [
        {
            "count": 1 if m["count"] in ("a", "an") else large.NUMBERS.index(m["count"]),
            "shape": m["shape"],
            "colour": m["colour"] or m["colour_alone"],
            "size": m["size"],
        }
        for m in matches
    ]
    if len(groups) < len(parts) or any(groups_overlap(one, other) for one, other in combinations(groups, 2)):
        return None
    several = any(group["count"] > 1 for group in groups)
    if several and related:
        return None
    if related:
        category = "position" if len(groups) == 2 else "chain"
    elif len(groups) == 1:
        category = "counting" if several else "single"
    else:
        category = "counts" if several else "attribution"
    relations = [[number, relation, number + 1] for number, relation in enumerate(related[::2])]
    return spec | {"category": category, "groups": groups, "relations": relations}
