"""Mistakes of an image as text: one strict grammar for planted and for real mistakes.

The mistakes follow from the image and the prompt's spec alone, in this order, joined by commas:

    c2 is unclear                                   the cell matches no known cell template
    c2 is blue instead of red                       correct shape, wrong colour
    c2 is a square instead of a circle              correct colour (or no colour requested), wrong shape
    a red circle is missing                         none where one was requested
    two circles instead of three                    any other wrong count
    c2 blue square is extra                         nothing like it was requested
    the red circle is not left of the cross         both exist, but not in the requested relation

`nothing` for a correct image, exactly when `motet.shapes.verifier.verify` finds it correct.
"""

from __future__ import annotations

from typing import Any

from motet.shapes.prompts import Spec, plural
from motet.shapes.scene import NUMBERS, ShapeInstance, related
from motet.shapes.verifier import ParsedImage

NOTHING = "nothing"


def find_mistakes(parsed: ParsedImage, spec: Spec) -> list[str]:
    """Every mistake of a parsed image in the grammar above; empty for a correct one."""
    scene = parsed.scene
    found = [f"{ShapeInstance(row, column, '', '').cell} is unclear" for row, column in parsed.unreadable]
    matching = [scene.matching(group["shape"], group["colour"]) for group in spec["groups"]]
    unmatched = [obj for obj in scene.objects if not any(obj in objects for objects in matching)]
    for group, objects in zip(spec["groups"], matching, strict=True):
        number = len(objects)
        while number < group["count"] and (paired := _nearest(group, unmatched)) is not None:
            obj, difference = paired
            found.append(f"{obj.cell} is {difference}")
            unmatched.remove(obj)
            number += 1
        if number == 0 and group["count"] == 1:
            found.append(f"{_group_name(1, group)} is missing")
        elif number != group["count"]:
            found.append(f"{_group_name(number, group)} instead of {NUMBERS[group['count']]}")
    found += [f"{obj.cell} {obj.name} is extra" for obj in unmatched]
    if spec.get("relation") is not None and [len(objects) for objects in matching] == [1, 1]:
        (first,), (second,) = matching
        if not related(first, spec["relation"], second):
            one, other = (_group_name(1, group).removeprefix("a ") for group in spec["groups"])
            found.append(f"the {one} is not {spec['relation']} the {other}")
    return found


def describe_mistakes(parsed: ParsedImage, spec: Spec) -> str:
    """All mistakes as one text; `nothing` for a correct image."""
    return ", ".join(find_mistakes(parsed, spec)) or NOTHING


def _nearest(group: dict[str, Any], unmatched: list[ShapeInstance]) -> tuple[ShapeInstance, str] | None:
    """The first unmatched object with the group's shape but another colour, else with its colour but another shape."""
    colour, shape = group["colour"], group["shape"]
    for obj in unmatched:
        if colour is not None and obj.shape == shape:
            return obj, f"{obj.colour} instead of {colour}"
    for obj in unmatched:
        if colour in (None, obj.colour) and obj.shape != shape:
            return obj, f"a {obj.shape} instead of a {shape}"
    return None


def _group_name(number: int, group: dict[str, Any]) -> str:
    """`a red circle`, `two circles`, `many squares`."""
    count = "a" if number == 1 else NUMBERS[number] if number < len(NUMBERS) else "many"
    words = (count, group["colour"], group["shape"] if number == 1 else plural(group["shape"]))
    return " ".join(word for word in words if word)
