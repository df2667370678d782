"""Questions about a scene, with CoRL's `<think> ... </think><answer> ... </answer>` solutions.

Six kinds: existence, count, colour, shape, relation, order (what comes next as one reads); each as multiple choice or
open-ended.

A solution thinks before it answers. People's rationales are uneven, and so are the ones here. A *careful* thought lists
what the picture holds, cell by cell in reading order, gathers the evidence from the list (the cell of the thing that
is asked for, the cells to count, the two things to compare and how they stand) and reads the answer off. A
*glance* says at once what it looks like. Both end in the right answer. Supervision learns to imitate the mixture; which
way of thinking pays is for reinforcement learning to find out.

Beside them stands one request, made in training alone: to say in a sentence what the picture holds.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass

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

CAPTION = "what is in the picture?"
KINDS = ("existence", "count", "colour", "shape", "relation", "order")
LETTERS = "ABCD"
_ORDER = ("yes", "no", *NUMBERS, *COLOURS, *SHAPES, "left", "right", "above", "below")
"""Options come in the order in which anyone would list them."""


@dataclass(frozen=True)
class Question:
    """A question with its answer. `options` is empty for an open-ended one; `answer` is then the word, else the letter.

    `evidence` is what the answer is read off, in words; `held_out` says whether question and answer together name a
    composition that training never asks about.
    """

    kind: str
    text: str
    options: tuple[str, ...]
    answer: str
    word: str
    evidence: str
    held_out: bool


def sample_question(
    rng: Rng, scene: Scene, kind: str, open_ended: float = 0.5, *, located: bool = True
) -> Question | None:
    """A question of a kind about the scene, with this chance open-ended; None if the scene does not allow one.

    `located`: evidence of existence and order names the cell of the thing asked about (see `WorldOptions`).
    """
    asked = _ASK[kind](rng, scene)
    if asked is None:
        return None
    text, word, wrong, evidence, held_out = asked
    if not located and kind == "existence":
        colour = evidence.split()[0]
        evidence = f"{colour} {_list([thing.shape for thing in scene.matching(colour=colour)])}"
    elif not located and kind == "order":
        asked_about, after = evidence.split(", ")
        evidence = f"{asked_about.rpartition(' ')[0]}, {after}"
    if rng.random() < open_ended:
        return Question(kind, text, (), word, word, evidence, held_out)
    chosen = {word, *(str(w) for w in rng.permutation(wrong)[:3])}
    options = tuple(option for option in _ORDER if option in chosen)
    lines = " ".join(f"{LETTERS[i]}. {option}" for i, option in enumerate(options))
    return Question(kind, f"{text} {lines}", options, LETTERS[options.index(word)], word, evidence, held_out)


def caption_question(scene: Scene) -> Question:
    """The request for a caption, with the caption as its answer."""
    text, groups = caption(scene), Counter((thing.colour, thing.shape) for thing in scene.things)
    held_out = any(pair in HELD_OUT_PAIRS or (n, pair[1]) in HELD_OUT_COUNTS for pair, n in groups.items())
    return Question("caption", CAPTION, (), text, text, "", held_out)


def caption(scene: Scene) -> str:
    """A scene in the words of prompts: `two red circles, a blue square and a black cross`, in reading order.

    Of two different things it says how they stand, along the direction in which they are further apart.
    """
    groups = list(Counter((thing.colour, thing.shape) for thing in scene.things).items())
    if len(scene.things) == len(groups) == 2:
        one, other = scene.things
        sideways = abs(one.column - other.column) >= abs(one.row - other.row)
        relation = next(r for r in RELATIONS if sideways == r.endswith(" of") and related(one, r, other))
        return f"{phrase(1, one.shape, one.colour)} {relation} {phrase(1, other.shape, other.colour)}"
    names = [phrase(count, shape, colour) for (colour, shape), count in groups]
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else "nothing"


def describe(scene: Scene) -> str:
    """All things in reading order with their cells: `a1 red circle, c2 blue square`; `nothing` for bare paper."""
    return ", ".join(f"{thing.cell} {thing.name}" for thing in scene.things) or "nothing"


def solution(question: Question, scene: Scene, careful: bool) -> str:
    """A thought and the answer in CoRL's format; a caption as it is."""
    if question.kind == "caption":
        return f" {question.answer}"
    seen = f"{describe(scene)}, {question.evidence}" if question.evidence else describe(scene)
    thought = f"{seen}, so {question.word}" if careful else f"looks like {question.word}"
    return f"<think> {thought}</think><answer> {question.answer}</answer>"


Asked = tuple[str, str, list[str], str, bool]
"""Question, right word, wrong words, evidence, whether it is held out."""


def _list(words: list[str]) -> str:
    return " ".join(words) or "nothing"


def _existence(rng: Rng, scene: Scene) -> Asked:
    present = rng.random() < 0.5
    pairs = {(thing.colour, thing.shape) for thing in scene.things}
    if present:
        colour, shape = choose(rng, sorted(pairs))
    else:
        # Near misses: a colour and a shape that are both there, though not on one thing, where such a pair exists.
        colours, shapes = {c for c, _ in pairs}, {s for _, s in pairs}
        near = sorted({(c, s) for c in colours for s in shapes} - pairs)
        every = sorted({(c, s) for c in COLOURS for s in SHAPES} - pairs)
        colour, shape = choose(rng, near if near and rng.random() < 0.7 else every)
    evidence = f"{colour} {shape} {_list([thing.cell for thing in scene.matching(shape, colour)])}"
    answer, wrong = ("yes", "no") if present else ("no", "yes")
    return f"is there a {colour} {shape}?", answer, [wrong], evidence, (colour, shape) in HELD_OUT_PAIRS


def _count(rng: Rng, scene: Scene) -> Asked:
    by_shape = rng.random() < 0.6
    shape = choose(rng, SHAPES) if by_shape else None
    colour = None if by_shape else choose(rng, list(COLOURS))
    number = len(scene.matching(shape, colour))
    if number == 0 and rng.random() < 0.7:  # zero would otherwise be the commonest answer
        return _count(rng, scene)
    name = plural(shape) if shape else f"{colour} things"
    near = [NUMBERS[n] for n in range(max(0, number - 3), min(len(NUMBERS), number + 4)) if n != number]
    evidence = f"{name} {_list([thing.cell for thing in scene.matching(shape, colour)])}"
    return f"how many {name}?", NUMBERS[number], near, evidence, (number, shape) in HELD_OUT_COUNTS


def _colour(rng: Rng, scene: Scene) -> Asked | None:
    unique = [shape for shape in SHAPES if len(scene.matching(shape)) == 1]
    if not unique:
        return None
    shape = choose(rng, unique)
    colour = scene.matching(shape)[0].colour
    wrong = [c for c in COLOURS if c != colour]
    return f"what colour is the {shape}?", colour, wrong, "", (colour, shape) in HELD_OUT_PAIRS


def _shape(rng: Rng, scene: Scene) -> Asked | None:
    unique = [colour for colour in COLOURS if len(scene.matching(colour=colour)) == 1]
    if not unique:
        return None
    colour = choose(rng, unique)
    shape = scene.matching(colour=colour)[0].shape
    wrong = [s for s in SHAPES if s != shape]
    return f"what shape is the {colour} thing?", shape, wrong, "", (colour, shape) in HELD_OUT_PAIRS


def _relation(rng: Rng, scene: Scene) -> Asked | None:
    unique = [t for t in scene.things if len(scene.matching(t.shape, t.colour)) == 1]
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
    one, other = (thing.cell[:1] if sideways else thing.cell[1:] for thing in (first, second))
    evidence = f"{first.name} {first.cell}, {second.name} {second.cell}, {one} {relation} {other}"
    return text, word, [w for w in words if w != word], evidence, held_out


def _order(rng: Rng, scene: Scene) -> Asked | None:
    """What comes next in reading order: two look-ups in a list of the picture, a search at a glance."""
    pairs = [
        (first, after)
        for first, after in itertools.pairwise(scene.things)
        if len(scene.matching(first.shape, first.colour)) == 1
    ]
    if not pairs:
        return None
    first, after = choose(rng, pairs)
    asks_colour = rng.random() < 0.5
    word, words = (after.colour, list(COLOURS)) if asks_colour else (after.shape, list(SHAPES))
    text = f"what {'colour' if asks_colour else 'shape'} comes after the {first.name}?"
    evidence = f"{first.name} {first.cell}, {after.cell} {after.name}"
    return text, word, [w for w in words if w != word], evidence, (first.colour, first.shape) in HELD_OUT_PAIRS


_ASK = {
    "existence": _existence,
    "count": _count,
    "colour": _colour,
    "shape": _shape,
    "relation": _relation,
    "order": _order,
}
