"""What is wrong with a picture, in words: one strict grammar for planted and for real mistakes.

The mistakes follow from the picture and the prompt's spec alone, in this order, joined by commas:

    c2 is unclear                                   the cell shows nothing legal
    c2 is blue instead of red                       right shape, wrong colour
    c2 is a square instead of a circle              right colour (or no colour asked for), wrong shape
    a red circle is missing                         none where one was asked for
    two circles instead of three                    any other wrong number
    c2 blue square is extra                         nothing like it was asked for
    the red circle is not left of the cross         both are there, and not as asked

`nothing` when nothing is wrong, which is exactly when `motet.shapes.verifier.judge` finds the picture correct.
"""

from __future__ import annotations

from typing import Any

from motet.shapes.prompts import Spec, plural
from motet.shapes.scene import NUMBERS, ShapeInstance, related
from motet.shapes.verifier import ParsedImage

NOTHING = "nothing"


def mistakes(reading: ParsedImage, spec: Spec) -> list[str]:
    """Every mistake of a picture that was read back, in the words above; empty for a correct one."""
    scene = reading.scene
    found = [f"{ShapeInstance(row, column, '', '').cell} is unclear" for row, column in reading.unreadable]
    matching = [scene.matching(group["shape"], group["colour"]) for group in spec["groups"]]
    strays = [thing for thing in scene.things if not any(thing in things for things in matching)]
    for group, things in zip(spec["groups"], matching, strict=True):
        number = len(things)
        while number < group["count"] and (paired := _nearest(group, strays)) is not None:
            thing, words = paired
            found.append(f"{thing.cell} is {words}")
            strays.remove(thing)
            number += 1
        if number == 0 and group["count"] == 1:
            found.append(f"{_name(1, group)} is missing")
        elif number != group["count"]:
            found.append(f"{_name(number, group)} instead of {NUMBERS[group['count']]}")
    found += [f"{thing.cell} {thing.name} is extra" for thing in strays]
    if spec.get("relation") is not None and [len(things) for things in matching] == [1, 1]:
        (first,), (second,) = matching
        if not related(first, spec["relation"], second):
            one, other = (_name(1, group).removeprefix("a ") for group in spec["groups"])
            found.append(f"the {one} is not {spec['relation']} the {other}")
    return found


def mistakes_in_words(reading: ParsedImage, spec: Spec) -> str:
    """All mistakes as one text, or `nothing`."""
    return ", ".join(mistakes(reading, spec)) or NOTHING


def _nearest(group: dict[str, Any], strays: list[ShapeInstance]) -> tuple[ShapeInstance, str] | None:
    """The stray that the group lacks but for its colour, or else but for its shape; the first as one reads."""
    colour, shape = group["colour"], group["shape"]
    for thing in strays:
        if colour is not None and thing.shape == shape:
            return thing, f"{thing.colour} instead of {colour}"
    for thing in strays:
        if colour in (None, thing.colour) and thing.shape != shape:
            return thing, f"a {thing.shape} instead of a {shape}"
    return None


def _name(number: int, group: dict[str, Any]) -> str:
    """`a red circle`, `two circles`, `many squares`."""
    count = "a" if number == 1 else NUMBERS[number] if number < len(NUMBERS) else "many"
    words = (count, group["colour"], group["shape"] if number == 1 else plural(group["shape"]))
    return " ".join(word for word in words if word)
