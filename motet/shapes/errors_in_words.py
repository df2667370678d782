"""Mistakes of an image as text: one strict grammar for planted and for real mistakes.

The mistakes follow from the image and the prompt's spec alone, in this order, joined by commas:

    c2 is unclear                                   the cell matches no known cell template
    c2 is blue instead of red                       of what was requested all else is correct: wrong colour
    c2 is a square instead of a circle              wrong shape
    c2 is small instead of large                    wrong size
    a red circle is missing                         none where one was requested
    two circles instead of three                    any other wrong count
    c2 blue square is extra                         nothing like it was requested
    the red circle is not left of the cross         both exist, but not in the requested relation

Where a spec of the large world leaves open what the objects are:

    c2 small blue square is wrong                   it was requested that there is none
    two things instead of three                     wrong number of objects
    a circle is missing                             none of what there should be less of
    not more squares than circles                   as many, or fewer

`nothing` for a correct image, exactly when `motet.shapes.verifier.verify` finds it correct.
"""

from __future__ import annotations

from typing import Any

from motet.shapes.large.vocabulary import NUMBERS as LARGE_NUMBERS
from motet.shapes.prompts import Spec, phrase, without_number
from motet.shapes.scene import NUMBERS, ShapeInstance, related
from motet.shapes.verifier import ParsedImage, relations_of

NOTHING = "nothing"
_ATTRIBUTES = ("colour", "shape", "size")


def find_mistakes(parsed: ParsedImage, spec: Spec) -> list[str]:
    """Every mistake of a parsed image in the grammar above; empty for a correct one."""
    unclear = [f"{ShapeInstance(row, column, '', '').cell} is unclear" for row, column in parsed.unreadable]
    if spec.get("total") is not None:
        return unclear + _mistakes_of_total(parsed, spec)
    if spec.get("more") is not None:
        return unclear + _mistakes_of_comparison(parsed, spec)
    return unclear + _mistakes_of_groups(parsed, spec)


def describe_mistakes(parsed: ParsedImage, spec: Spec) -> str:
    """All mistakes as one text; `nothing` for a correct image."""
    return ", ".join(find_mistakes(parsed, spec)) or NOTHING


def _mistakes_of_groups(parsed: ParsedImage, spec: Spec) -> list[str]:
    scene, found = parsed.scene, []
    matching = [scene.matching(group["shape"], group["colour"], group.get("size")) for group in spec["groups"]]
    unmatched = [obj for obj in scene.objects if not any(obj in objects for objects in matching)]
    for group, objects in zip(spec["groups"], matching, strict=True):
        number = len(objects)
        while number < group["count"] and (paired := _nearest(group, unmatched)) is not None:
            obj, difference = paired
            found.append(f"{obj.cell} is {difference}")
            unmatched.remove(obj)
            number += 1
        if number == 0 and group["count"] == 1:
            found.append(f"{phrase(**group)} is missing")
        elif number != group["count"]:
            found.append(_wrong_count(number, group, spec))
    found += [f"{obj.cell} {obj.name} is extra" for obj in unmatched]
    for first, relation, second in relations_of(spec):
        pairs = [(one, other) for one in matching[first] for other in matching[second]]
        if len(pairs) == 1 and not related(pairs[0][0], relation, pairs[0][1]):
            one, other = (without_number(**spec["groups"][i]) for i in (first, second))
            found.append(f"the {one} is not {relation} the {other}")
    return found


def _mistakes_of_total(parsed: ParsedImage, spec: Spec) -> list[str]:
    """Mistakes where a number of objects is requested and the absence of a kind."""
    number = len(parsed.scene.objects) + len(parsed.unreadable)
    found = [f"{obj.cell} {obj.name} is wrong" for obj in parsed.scene.matching(**spec["absent"])]
    if number != spec["total"]:
        found.append(_wrong_count(number, {"count": spec["total"], "shape": None, "colour": None}, spec))
    return found


def _mistakes_of_comparison(parsed: ParsedImage, spec: Spec) -> list[str]:
    """Mistakes where more of one kind than of another is requested, and nothing else."""
    more, fewer = (parsed.scene.matching(**group) for group in spec["more"])
    found = [f"{obj.cell} {obj.name} is extra" for obj in parsed.scene.objects if obj not in more + fewer]
    if not fewer:
        found.append(f"{phrase(1, **spec['more'][1])} is missing")
    if len(more) <= len(fewer):
        first, second = (without_number(0, **group) for group in spec["more"])
        found.append(f"not more {first} than {second}")
    return found


def _wrong_count(number: int, group: dict[str, Any], spec: Spec) -> str:
    """`two red circles instead of three`, `many squares instead of one`."""
    numbers = LARGE_NUMBERS if spec.get("world") == "large" else NUMBERS
    shown = {**group, "count": number}
    name = phrase(**shown) if number < len(numbers) else f"many {without_number(**shown)}"
    return f"{name} instead of {numbers[group['count']]}"


def _nearest(group: dict[str, Any], unmatched: list[ShapeInstance]) -> tuple[ShapeInstance, str] | None:
    """The first unmatched object that differs from the group in its colour alone; else in its shape, or its size."""
    for attribute in _ATTRIBUTES:
        for obj in unmatched:
            if [a for a in _ATTRIBUTES if group.get(a) not in (None, getattr(obj, a))] == [attribute]:
                article = "a " if attribute == "shape" else ""
                return obj, f"{article}{getattr(obj, attribute)} instead of {article}{group[attribute]}"
    return None
