"""500 synthetic detector outputs with GenEval prompts, hard cases first of all; the same on every machine.

Only `random.Random.random` is used, whose numbers do not depend on the version of Python.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

CLASSES = ("dog", "cat", "bus", "clock")
COLOURS = ("red", "blue")
RELATIONS = ("left of", "right of", "above", "below")
KINDS = (
    "count", "over-count", "missing", "many", "threshold", "colour", "same class twice", "position", "equal positions",
    "overlap", "tolerance", "position of many", "failed target", "everything",
)  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What a detector finds: an integer box (left, top, right, bottom), a score and the colour that CLIP would see."""

    name: str
    box: tuple[int, int, int, int]
    score: float
    colour: str


@dataclass(frozen=True)
class Case:
    kind: str
    metadata: dict[str, Any]
    found: list[Found]
    """In no order; scores differ."""


def cases(count: int = 500, seed: int = 7) -> list[Case]:
    draws = _Draws(random.Random(seed))
    return [draws.case(KINDS[n % len(KINDS)]) for n in range(count)]


class _Draws:
    def __init__(self, source: random.Random) -> None:
        self.source = source

    def below(self, bound: int) -> int:
        return int(self.source.random() * bound)

    def of(self, options: Any) -> Any:
        return options[self.below(len(options))]

    def score(self, low: float = 0.0, high: float = 1.0) -> float:
        return round(low + (high - low) * self.source.random(), 6)

    def box(self) -> tuple[int, int, int, int]:
        left, top = self.below(80), self.below(80)
        return left, top, left + 1 + self.below(60), top + 1 + self.below(60)

    def found(self, name: str, box: Any = None, low: float = 0.0) -> Found:
        return Found(name, box or self.box(), self.score(low), self.of(COLOURS))

    def case(self, kind: str) -> Case:
        one, other, *_ = sorted(CLASSES, key=lambda _: self.source.random())
        found = [self.found(self.of(CLASSES)) for _ in range(self.below(4))]  # what nobody asked for, and more
        include: list[dict[str, Any]] = [{"class": one, "count": 1}]
        exclude: list[dict[str, Any]] = []
        tag = "two_object"
        if kind in ("count", "over-count", "many", "threshold"):
            tag, number = "counting", 1 + self.below(4)
            low = {"threshold": 0.85, "many": 0.3}.get(kind, 0.9)
            there = {"over-count": number + self.below(3), "many": 15 + self.below(4)}.get(kind, self.below(6))
            found += [self.found(one, low=low) for _ in range(there)]
            include = [{"class": one, "count": number}]
            exclude = [{"class": one, "count": number + 1}]
            if kind == "many":
                tag, include, exclude = "two_object", [{"class": one, "count": 15 + self.below(3)}], []
                exclude = [{"class": one, "count": 16 + self.below(2)}] if self.below(2) else []
        elif kind == "missing":
            include.append({"class": other, "count": 1 + self.below(2)})
            found += [self.found(one, low=0.3)]
        elif kind == "colour":
            tag, include = (
                "color_attr",
                [{"class": name, "count": 1, "color": self.of(COLOURS)} for name in (one, other)],
            )
            found += [self.found(name, low=0.2) for name in (one, other, one)]
        elif kind == "same class twice":
            tag = self.of(("colors", "position"))
            include = [{"class": one, "count": 1 + self.below(2)}, {"class": one, "count": 1 + self.below(2)}]
            if tag == "colors":
                include = [{**clause, "color": self.of(COLOURS)} for clause in include]
            else:
                include[1]["position"] = [self.of(RELATIONS), 0]
            found += [self.found(one, low=0.3) for _ in range(2)]
        else:
            tag = "position"
            placed = self.placed(kind, one, other)
            found = found[: self.below(2)] + placed
            relation = _direction(placed[1].box, placed[0].box) if self.below(4) else self.of(RELATIONS)
            include.append({"class": other, "count": 1, "position": [relation, 0]})
            if kind == "position of many":
                include[0]["count"], include[1]["count"] = 1 + self.below(2), 1 + self.below(2)
            if kind == "failed target":
                include[0]["color"] = self.of(COLOURS)
            if kind == "everything":
                include.append(
                    {"class": one, "count": 1, "color": self.of(COLOURS), "position": [self.of(RELATIONS), 1]}
                )
                exclude = [{"class": other, "count": 3}]
        metadata = {"tag": tag, "include": include, "prompt": "a photo"}
        return Case(kind, metadata | ({"exclude": exclude} if exclude else {}), found)

    def placed(self, kind: str, one: str, other: str) -> list[Found]:
        """Instances of two classes for a clause about positions."""
        box = self.box()
        left, top, right, bottom = box
        if kind == "equal positions":
            moved = (left - self.below(2), top, right + self.below(2), bottom)
            return [self.found(one, box, 0.3), self.found(other, moved, 0.3)]
        if kind == "overlap":
            dx, dy = self.below(21) - 10, self.below(21) - 10
            return [self.found(one, box, 0.3), self.found(other, (left + dx, top + dy, right + dx, bottom + dy), 0.3)]
        if kind == "tolerance":  # equal boxes of 50, moved by about a tenth of both sizes, which is 10
            dx, dy = self.of((-20, -11, -10, -9, 0, 9, 10, 11, 20)), self.of((-30, -20, -10, 0, 10, 20))
            return [
                self.found(one, (50, 50, 100, 100), 0.3),
                self.found(other, (50 + dx, 50 + dy, 100 + dx, 100 + dy), 0.3),
            ]
        extra = self.below(3) if kind in ("position of many", "everything") else 0
        return [self.found(name, low=0.3) for name in (one, other, *(one, other)[:extra])]


def _direction(box: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> str:
    """The likely relation of one box to another."""
    dx, dy = box[0] + box[2] - other[0] - other[2], box[1] + box[3] - other[1] - other[3]
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"
