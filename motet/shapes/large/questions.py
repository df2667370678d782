"""Questions of the large world, eight kinds, with solutions in the form of `motet.shapes.questions`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from motet.shapes.large.vocabulary import COLOURS, NUMBERS, RELATIONS, SETS, SHAPES, SIZES, sets_of
from motet.shapes.prompts import Rng, choose, phrase, without_number
from motet.shapes.questions import LETTERS, Question
from motet.shapes.scene import Scene, ShapeInstance, related

KINDS = ("existence", "negation", "count", "comparison", "attribute", "relation", "reference", "chain")
HARD_KINDS = ("count", "comparison", "relation", "reference", "chain")
_ORDER = ("yes", "no", *NUMBERS, *SIZES, *COLOURS, *SHAPES, "left", "right", "above", "below")
"""The order in which options are listed."""

Named = tuple[list[tuple[str | None, str | None]], list[str]]
"""Pairs of colour and shape, and relations, that a question and its answer name."""

Group = tuple[str | None, str | None, str | None]
"""Shape, colour and size of some objects; None stands for any."""

Parts = tuple[str, str, list[str], str, Sequence[Group], Named]
"""Question, correct word, wrong words, rationale, groups of the objects in question, what it names."""


def sample_question(
    rng: Rng, scene: Scene, kind: str, open_ended_fraction: float = 0.5, allowed: Collection[str] = tuple(SETS)
) -> tuple[Question, Named] | None:
    """A question of this kind about the scene and what it names; None if the scene does not allow one.

    Wrong options are words of the `allowed` sets alone.
    """
    parts = _SAMPLERS[kind](rng, scene)
    if parts is None:
        return None
    text, word, wrong, rationale, groups, named = parts
    held_out, listing = "held_out" in sets_of(*named), numbered(scene, groups)
    if rng.random() < open_ended_fraction:
        return Question(kind, text, (), word, word, rationale, held_out, listing), named
    wrong = [other for other in wrong if sets_of([(other, None)]) <= set(allowed)]
    chosen = {word, *(str(w) for w in rng.permutation(wrong)[:3])}
    options = tuple(option for option in _ORDER if option in chosen)
    lines = " ".join(f"{LETTERS[i]}. {option}" for i, option in enumerate(options))
    letter = LETTERS[options.index(word)]
    return Question(kind, f"{text} {lines}", options, letter, word, rationale, held_out, listing), named


def numbered(scene: Scene, groups: Sequence[Group]) -> str:
    """All objects, row by row, with their cells; each is counted in the first of the groups that it belongs to.

    Of red things: `a1 large red circle one, c2 small blue square, d2 small red star two`.
    """
    texts, so_far = [], Counter[Group]()
    for obj in scene.objects:
        text, group = f"{obj.cell} {obj.name}", next((group for group in groups if obj.is_of(*group)), None)
        if group is not None:
            so_far[group] += 1
            text += f" {NUMBERS[so_far[group]]}"
        texts.append(text)
    return ", ".join(texts)


def _cells(objects: list[ShapeInstance]) -> str:
    return " ".join(obj.cell for obj in objects) or "nowhere"


def _yes_no(yes: bool) -> tuple[str, list[str]]:
    return ("yes", ["no"]) if yes else ("no", ["yes"])


def _unique(scene: Scene) -> list[ShapeInstance]:
    """Objects that colour and shape alone tell from all others."""
    return [obj for obj in scene.objects if len(scene.matching(obj.shape, obj.colour)) == 1]


def _existence(rng: Rng, scene: Scene) -> Parts:
    """Whether there is an object of this colour and shape, sometimes of a size too; wrong ones are near misses."""
    names = [(obj.colour, obj.shape, obj.size if rng.random() < 0.4 else None) for obj in scene.objects]
    colour, shape, size = choose(rng, names)
    if rng.random() < 0.5:
        other = choose(rng, scene.objects)
        change = int(rng.integers(3))
        if change == 0:
            colour = other.colour if rng.random() < 0.7 else choose(rng, list(COLOURS))
        elif change == 1:
            shape = other.shape if rng.random() < 0.7 else choose(rng, SHAPES)
        else:
            size = choose(rng, SIZES)
    found = scene.matching(shape, colour, size)
    word, wrong = _yes_no(bool(found))
    rationale = f"{without_number(1, shape, colour, size)} {_cells(found)}"
    text, group = f"is there {phrase(1, shape, colour, size)}?", (shape, colour, size)
    return text, word, wrong, rationale, [group], ([(colour, shape)], [])


def _negation(rng: Rng, scene: Scene) -> Parts:
    """Whether there is nothing of a shape or a colour."""
    by_shape, present = rng.random() < 0.5, rng.random() < 0.5
    words = sorted({obj.shape if by_shape else obj.colour for obj in scene.objects})
    missing = [word for word in (SHAPES if by_shape else COLOURS) if word not in words]
    chosen = choose(rng, words if present or not missing else missing)
    shape, colour = (chosen, None) if by_shape else (None, chosen)
    name = without_number(1, shape, colour)
    found = scene.matching(shape, colour)
    word, wrong = _yes_no(not found)
    groups = [(shape, colour, None)]
    return f"is there no {name}?", word, wrong, f"{name} {_cells(found)}", groups, ([(colour, shape)], [])


def _count(rng: Rng, scene: Scene) -> Parts:
    shape, colour, size = _kind_of_things(rng, scene)
    found = scene.matching(shape, colour, size)
    number, name = len(found), without_number(0, shape, colour, size)
    near = [NUMBERS[n] for n in range(max(0, number - 3), min(len(NUMBERS), number + 4)) if n != number]
    groups = [(shape, colour, size)]
    return f"how many {name}?", NUMBERS[number], near, f"{name} {_cells(found)}", groups, ([(colour, shape)], [])


def _kind_of_things(rng: Rng, scene: Scene) -> Group:
    """Shape, colour and size to count by: one or two of them, most often those of an object that is there."""
    obj = choose(rng, scene.objects)
    shape, colour, size = obj.shape, obj.colour, obj.size
    if rng.random() < 0.2:
        shape, colour = choose(rng, SHAPES), choose(rng, list(COLOURS))
    by = choose(rng, ("shape", "shape", "colour", "size", "sized shape"))
    return (shape if "shape" in by else None, colour if by == "colour" else None, size if "size" in by else None)


def _comparison(rng: Rng, scene: Scene) -> Parts | None:
    """Whether there are more of one shape, or of one colour, than of another."""
    by_shape = rng.random() < 0.6
    words = sorted({obj.shape if by_shape else obj.colour for obj in scene.objects})
    if len(words) < 2:
        return None
    pair = [str(word) for word in rng.permutation(words)[:2]]
    groups: list[Group] = [(word, None, None) if by_shape else (None, word, None) for word in pair]
    found = [scene.matching(*group) for group in groups]
    if len(found[0]) == len(found[1]) and rng.random() < 0.5:
        return None  # otherwise no would be the answer twice as often as yes
    names = [without_number(0, *group) for group in groups]
    word, wrong = _yes_no(len(found[0]) > len(found[1]))
    seen = [f"{name} {_cells(objects)}" for name, objects in zip(names, found, strict=True)]
    rationale = f"{seen[0]}, {seen[1]}, {NUMBERS[len(found[0])]} and {NUMBERS[len(found[1])]}"
    named = [(colour, shape) for shape, colour, _ in groups]
    return f"are there more {names[0]} than {names[1]}?", word, wrong, rationale, groups, (named, [])


def _attribute(rng: Rng, scene: Scene) -> Parts | None:
    """One attribute of the only object with one or two of the others."""
    asked = choose(rng, ("colour", "shape", "size"))
    obj = choose(rng, scene.objects)
    known = {
        "shape": obj.shape if asked != "shape" else None,
        "colour": obj.colour if asked == "shape" or (asked == "size" and rng.random() < 0.7) else None,
        "size": obj.size if asked != "size" and rng.random() < 0.3 else None,
    }
    if len(scene.matching(**known)) != 1:
        return None
    words = {"colour": list(COLOURS), "shape": list(SHAPES), "size": list(SIZES)}[asked]
    word = getattr(obj, asked)
    name = without_number(1, **known)
    text = f"what {asked} is the {name}?"
    wrong, group = [w for w in words if w != word], (known["shape"], known["colour"], known["size"])
    return text, word, wrong, f"{obj.cell} {obj.name}", [group], ([(obj.colour, obj.shape)], [])


def _relation(rng: Rng, scene: Scene) -> Parts | None:
    """Which of two opposite relations holds, or whether one of the others does."""
    unique = _unique(scene)
    if len(unique) < 2:
        return None
    first, second = (unique[i] for i in rng.permutation(len(unique))[:2])
    relation = choose(rng, RELATIONS)
    sideways = relation in RELATIONS[:2]
    named = [(obj.colour, obj.shape) for obj in (first, second)]
    groups: list[Group] = [(obj.shape, obj.colour, None) for obj in (first, second)]
    places = [f"{obj.colour} {obj.shape} {obj.cell}" for obj in (first, second)]
    holds = related(first, relation, second)
    if relation in RELATIONS[4:]:
        if not holds and rng.random() < 0.6:
            return None  # otherwise no would nearly always be the answer
        word, wrong = _yes_no(holds)
        text = f"is the {first.colour} {first.shape} {relation} the {second.colour} {second.shape}?"
        return text, word, wrong, ", ".join(places), groups, (named, [relation])
    if not holds:
        return None
    words = ("left", "right") if sideways else ("above", "below")
    word = relation.removesuffix(" of")
    text = f"is the {first.colour} {first.shape} {words[0]} or {words[1]}{' of' if sideways else ''} the "
    text += f"{second.colour} {second.shape}?"
    one, other = (obj.cell[:1] if sideways else obj.cell[1:] for obj in (first, second))
    rationale = f"{places[0]}, {places[1]}, {one} {relation} {other}"
    return text, word, [w for w in words if w != word], rationale, groups, (named, [])


def _reference(rng: Rng, scene: Scene) -> Parts | None:
    """An attribute of the only object of a colour or shape that is in a relation to another: `the star left of ...`."""
    return _refer(rng, scene, 1)


def _chain(rng: Rng, scene: Scene) -> Parts | None:
    """The same with two relations: `the star that is left of ... and above ...`."""
    return _refer(rng, scene, 2)


def _refer(rng: Rng, scene: Scene, relations: int) -> Parts | None:
    unique = _unique(scene)
    if len(unique) < relations:
        return None
    target = choose(rng, scene.objects)
    anchors = [unique[i] for i in rng.permutation(len(unique))[:relations]]
    if target in anchors:
        return None
    asks_colour = rng.random() < 0.5
    known = {"shape": target.shape if asks_colour else None, "colour": None if asks_colour else target.colour}
    used = [choose(rng, RELATIONS[:4]) for _ in anchors]
    matching = [
        obj for obj in scene.matching(**known)
        if all(related(obj, relation, anchor) for relation, anchor in zip(used, anchors, strict=True))
    ]  # fmt: skip
    if matching != [target] or len(scene.matching(**known)) < 2:
        return None  # without a second candidate the relations would not matter
    names = [f"{anchor.colour} {anchor.shape}" for anchor in anchors]
    places = " and ".join(f"{relation} the {name}" for relation, name in zip(used, names, strict=True))
    noun = target.shape if asks_colour else f"{target.colour} thing"
    word, words = (target.colour, COLOURS) if asks_colour else (target.shape, SHAPES)
    seen = ", ".join(f"{name} {anchor.cell}" for name, anchor in zip(names, anchors, strict=True))
    rationale = f"{seen}, {noun} {_cells(scene.matching(**known))}, {target.cell} {target.colour} {target.shape}"
    text = f"what {'colour' if asks_colour else 'shape'} is the {noun} {places}?"
    groups: list[Group] = [(known["shape"], known["colour"], None)]
    groups += [(anchor.shape, anchor.colour, None) for anchor in anchors]
    named = [(obj.colour, obj.shape) for obj in (target, *anchors)]
    return text, word, [w for w in words if w != word], rationale, groups, (named, [])


_SAMPLERS = {
    "existence": _existence,
    "negation": _negation,
    "count": _count,
    "comparison": _comparison,
    "attribute": _attribute,
    "relation": _relation,
    "reference": _reference,
    "chain": _chain,
}
