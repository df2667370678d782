"""Questions about a scene, with CoRL's `<think> ... </think><answer> ... </answer>` solutions.

Six kinds: existence, count, colour, shape, relation, order (which object comes next, row by row); each as multiple
choice or open-ended.

A solution thinks before it answers, in one of three ways, as human rationales vary in length. A *chain of thought*
lists the objects of the image cell by cell, extracts the rationale from the list (the cell of the object in question,
the cells to count, the two objects to compare and their relation) and derives the answer. In the large world the list
numbers the objects in question. A *short* one, in the large world alone, writes the rationale without the list. A
*direct answer* states what the image looks like. All end in the correct answer. SFT imitates the mixture; which of them
pays is for reinforcement learning to find out.

A seventh kind occurs in training alone: the request for a caption, one sentence with the contents of the image.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from motet.shapes.prompts import Rng, choose, phrase, plural
from motet.shapes.scene import (
    COLOURS,
    HELD_OUT_COUNTS,
    HELD_OUT_PAIRS,
    NUMBERS,
    RELATIONS,
    SHAPES,
    Scene,
    related,
)

Thought = Literal["direct", "short", "full"]
"""How a solution thinks."""
CAPTION = "what is in the picture?"
KINDS = ("existence", "count", "colour", "shape", "relation", "order")
LETTERS = "ABCD"
_ORDER = ("yes", "no", *NUMBERS, *COLOURS, *SHAPES, "left", "right", "above", "below")
"""The order in which options are listed."""


@dataclass(frozen=True)
class Question:
    """A question with its answer. `options` is empty for an open-ended one; `answer` is then the word, else the letter.

    `rationale` is the text that the answer is derived from; `held_out` says whether question and answer together name
    a composition that training never asks about. `listing` is the list of the image in a chain of thought, empty for
    that of `describe`.
    """

    kind: str
    text: str
    options: tuple[str, ...]
    answer: str
    word: str
    rationale: str
    held_out: bool
    listing: str = ""


def sample_question(
    rng: Rng, scene: Scene, kind: str, open_ended_fraction: float = 0.5, *, cite_cells: bool = True
) -> Question | None:
    """A question of this kind about the scene, None if the scene does not allow one.

    `open_ended_fraction` is the probability of an open-ended question. `cite_cells`: rationales of existence and order
    name the cell of the object in question (see `WorldOptions`).
    """
    parts = _SAMPLERS[kind](rng, scene)
    if parts is None:
        return None
    text, word, wrong, rationale, held_out = parts
    if not cite_cells and kind == "existence":
        colour = rationale.split()[0]
        rationale = f"{colour} {_list([obj.shape for obj in scene.matching(colour=colour)])}"
    elif not cite_cells and kind == "order":
        asked_about, after = rationale.split(", ")
        rationale = f"{asked_about.rpartition(' ')[0]}, {after}"
    if rng.random() < open_ended_fraction:
        return Question(kind, text, (), word, word, rationale, held_out)
    chosen = {word, *(str(w) for w in rng.permutation(wrong)[:3])}
    options = tuple(option for option in _ORDER if option in chosen)
    lines = " ".join(f"{LETTERS[i]}. {option}" for i, option in enumerate(options))
    return Question(kind, f"{text} {lines}", options, LETTERS[options.index(word)], word, rationale, held_out)


def caption_question(scene: Scene) -> Question:
    """The request for a caption, with the caption as its answer."""
    text, groups = caption(scene), Counter((obj.colour, obj.shape) for obj in scene.objects)
    held_out = any(pair in HELD_OUT_PAIRS or (n, pair[1]) in HELD_OUT_COUNTS for pair, n in groups.items())
    return Question("caption", CAPTION, (), text, text, "", held_out)


def caption(scene: Scene) -> str:
    """A scene in the form of a prompt: `two red circles, a blue square and a small black cross`, row by row.

    For two different objects it states their relation, along the direction in which they are further apart.
    """
    groups = list(Counter((obj.shape, obj.colour, obj.size) for obj in scene.objects).items())
    names = [phrase(count, *group) for group, count in groups]
    if len(scene.objects) == len(groups) == 2:
        one, other = scene.objects
        sideways = abs(one.column - other.column) >= abs(one.row - other.row)
        relation = next(r for r in RELATIONS if sideways == r.endswith(" of") and related(one, r, other))
        return f"{names[0]} {relation} {names[1]}"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else "nothing"


def describe(scene: Scene) -> str:
    """All objects, row by row, with their cells: `a1 red circle, c2 blue square`; `nothing` for an empty scene."""
    return ", ".join(f"{obj.cell} {obj.name}" for obj in scene.objects) or "nothing"


def solution(question: Question, scene: Scene, thought: Thought) -> str:
    """A thought and the answer in CoRL's format; a caption unchanged."""
    if question.kind == "caption":
        return f" {question.answer}"
    if thought == "direct":
        text = f"looks like {question.word}"
    else:
        seen = (question.listing or describe(scene) if thought == "full" else "", question.rationale)
        text = ", ".join([*filter(None, seen), f"so {question.word}"])
    return f"<think> {text}</think><answer> {question.answer}</answer>"


QuestionParts = tuple[str, str, list[str], str, bool]
"""Question, correct word, wrong words, rationale, whether it is held out."""


def _list(words: list[str]) -> str:
    return " ".join(words) or "nothing"


def _existence(rng: Rng, scene: Scene) -> QuestionParts:
    present = rng.random() < 0.5
    pairs = {(obj.colour, obj.shape) for obj in scene.objects}
    if present:
        colour, shape = choose(rng, sorted(pairs))
    else:
        # Near misses, if there are any: a colour and a shape that both occur, but not on one object.
        colours, shapes = {c for c, _ in pairs}, {s for _, s in pairs}
        near = sorted({(c, s) for c in colours for s in shapes} - pairs)
        every = sorted({(c, s) for c in COLOURS for s in SHAPES} - pairs)
        colour, shape = choose(rng, near if near and rng.random() < 0.7 else every)
    rationale = f"{colour} {shape} {_list([obj.cell for obj in scene.matching(shape, colour)])}"
    answer, wrong = ("yes", "no") if present else ("no", "yes")
    return f"is there a {colour} {shape}?", answer, [wrong], rationale, (colour, shape) in HELD_OUT_PAIRS


def _count(rng: Rng, scene: Scene) -> QuestionParts:
    by_shape = rng.random() < 0.6
    shape = choose(rng, SHAPES) if by_shape else None
    colour = None if by_shape else choose(rng, list(COLOURS))
    number = len(scene.matching(shape, colour))
    if number == 0 and rng.random() < 0.7:  # zero would otherwise be the most common answer
        return _count(rng, scene)
    name = plural(shape) if shape else f"{colour} things"
    near = [NUMBERS[n] for n in range(max(0, number - 3), min(len(NUMBERS), number + 4)) if n != number]
    rationale = f"{name} {_list([obj.cell for obj in scene.matching(shape, colour)])}"
    return f"how many {name}?", NUMBERS[number], near, rationale, (number, shape) in HELD_OUT_COUNTS


def _colour(rng: Rng, scene: Scene) -> QuestionParts | None:
    unique = [shape for shape in SHAPES if len(scene.matching(shape)) == 1]
    if not unique:
        return None
    shape = choose(rng, unique)
    colour = scene.matching(shape)[0].colour
    wrong = [c for c in COLOURS if c != colour]
    return f"what colour is the {shape}?", colour, wrong, "", (colour, shape) in HELD_OUT_PAIRS


def _shape(rng: Rng, scene: Scene) -> QuestionParts | None:
    unique = [colour for colour in COLOURS if len(scene.matching(colour=colour)) == 1]
    if not unique:
        return None
    colour = choose(rng, unique)
    shape = scene.matching(colour=colour)[0].shape
    wrong = [s for s in SHAPES if s != shape]
    return f"what shape is the {colour} thing?", shape, wrong, "", (colour, shape) in HELD_OUT_PAIRS


def _relation(rng: Rng, scene: Scene) -> QuestionParts | None:
    unique = [t for t in scene.objects if len(scene.matching(t.shape, t.colour)) == 1]
    if len(unique) < 2:
        return None
    first, second = (unique[i] for i in rng.permutation(len(unique))[:2])
    holding = [r for r in RELATIONS if related(first, r, second)]
    relation = choose(rng, holding)
    sideways = relation in ("left of", "right of")
    words = ("left", "right") if sideways else ("above", "below")
    word = relation.removesuffix(" of")
    held_out = any((t.colour, t.shape) in HELD_OUT_PAIRS for t in (first, second))
    text = f"is the {first.name} {words[0]} or {words[1]}{' of' if sideways else ''} the {second.name}?"
    one, other = (obj.cell[:1] if sideways else obj.cell[1:] for obj in (first, second))
    rationale = f"{first.name} {first.cell}, {second.name} {second.cell}, {one} {relation} {other}"
    return text, word, [w for w in words if w != word], rationale, held_out


def _order(rng: Rng, scene: Scene) -> QuestionParts | None:
    """Which object comes next, row by row."""
    pairs = [
        (first, after)
        for first, after in itertools.pairwise(scene.objects)
        if len(scene.matching(first.shape, first.colour)) == 1
    ]
    if not pairs:
        return None
    first, after = choose(rng, pairs)
    asks_colour = rng.random() < 0.5
    word, words = (after.colour, list(COLOURS)) if asks_colour else (after.shape, list(SHAPES))
    text = f"what {'colour' if asks_colour else 'shape'} comes after the {first.name}?"
    rationale = f"{first.name} {first.cell}, {after.cell} {after.name}"
    return text, word, [w for w in words if w != word], rationale, (first.colour, first.shape) in HELD_OUT_PAIRS


_SAMPLERS = {
    "existence": _existence,
    "count": _count,
    "colour": _colour,
    "shape": _shape,
    "relation": _relation,
    "order": _order,
}
