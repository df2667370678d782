"""How much of a scene two captions share: F1 over the tuples of their scene graphs.

In the manner of SPICE (Anderson et al. 2016, arXiv 1607.08822, equations 2 to 4): objects `(dog)`, attributes
`(dog, brown)`, relations `(dog, on, sofa)`. It is *not* SPICE: a small rule-based reader stands for the dependency
parser, a table of some 60 words for WordNet, numerals are tuples `(dog, 2)`, and a relation is written one way round
(`a right of b` is `b left of a`). It needs no download and no Java.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from motet.rewards.captions.chunks import Chunk, chunks
from motet.rewards.captions.lexicon import CONVERSE, SAME_RELATION

Tuples = frozenset[tuple[str, ...]]


def tuple_f1(candidate: str, reference: str) -> float:
    """`2 P R / (P + R)` over the tuples of two captions, in [0, 1]; 0 when they share none or one is empty."""
    ours, theirs = scene_tuples(candidate), scene_tuples(reference)
    shared = len(ours & theirs)
    return 2 * shared / (len(ours) + len(theirs)) if shared else 0.0


@lru_cache(maxsize=4096)  # a prompt is compared with all of its generations of a group' captions
def scene_tuples(caption: str) -> Tuples:
    """Objects, attributes, counts and relations of a caption."""
    scene = _Scene(chunks(caption))
    return frozenset(scene.tuples)


class _Scene:
    """Walks the chunks; remembers who the clause is about, what stood last, and which relation waits for its object."""

    def __init__(self, row: Sequence[Chunk]) -> None:
        self.tuples: set[tuple[str, ...]] = set()
        self.subjects: list[str] = []
        self.nearest: list[str] = []
        self.waiting: tuple[list[str], str] | None = None
        self.joined: tuple[list[str], str] | None = None  # the relation that `and` may continue
        self.told = False  # whether the clause has said something of its subjects
        self.relative = False  # inside `that ...`, which speaks of what stands nearest
        for place, chunk in enumerate(row):
            before = row[place - 1].kind if place else "stop"
            after = row[place + 1] if place + 1 < len(row) else Chunk("stop")
            self._take(chunk, before, after)

    def _take(self, chunk: Chunk, before: str, after: Chunk) -> None:
        if chunk.kind == "thing":
            self._thing(chunk, before, after)
        elif chunk.kind == "quality":
            self.tuples |= {(who, quality) for who in self._who() for quality in chunk.modifiers}
        elif chunk.kind == "relation":
            if self.waiting is None or not self.waiting[1].startswith("by "):
                self.waiting = (self.nearest or self.subjects, SAME_RELATION.get(chunk.word, chunk.word))
        elif chunk.kind == "verb":
            self._verb(chunk, after)
        elif chunk.kind == "be":
            self.told = True
        elif chunk.kind == "clause" and chunk.word in ("that", "which", "who", "whose"):
            self.relative = True
        elif chunk.kind == "clause":
            self.joined, self.told = None, True
        elif chunk.kind == "stop":
            self.subjects, self.nearest, self.waiting, self.joined = [], [], None, None
            self.told = self.relative = False

    def _thing(self, chunk: Chunk, before: str, after: Chunk) -> None:
        name = chunk.word
        self.tuples.add((name,))
        self.tuples |= {(name, modifier) for modifier in chunk.modifiers}
        if chunk.count is not None:
            self.tuples.add((name, str(chunk.count)))
        if self.waiting is not None:
            self._relate(*self.waiting, name)
            self.joined, self.waiting, self.told = self.waiting, None, True
        elif before in ("and", "comma") and not self.told:
            self.subjects = self.nearest = [*self.subjects, name]
            return
        elif before in ("and", "comma") and self.joined is not None and after.kind not in ("verb", "be"):
            self._relate(*self.joined, name)
        else:
            self.subjects, self.told, self.joined = [name], False, None
        self.nearest = [name]

    def _verb(self, chunk: Chunk, after: Chunk) -> None:
        who = self._who()
        self.told = True
        if after.kind == "relation" and after.word == "by":
            self.waiting = (who, f"by {chunk.word}")
        elif after.kind == "thing":
            self.waiting = (who, chunk.word)
        else:
            self.tuples |= {(subject, chunk.word) for subject in who}
            self.nearest = who

    def _who(self) -> list[str]:
        """Whom a predicate speaks of: after `that`, what stands nearest; else the clause's subjects."""
        relative, self.relative = self.relative, False
        return self.nearest if relative else self.subjects or self.nearest

    def _relate(self, subjects: Sequence[str], relation: str, thing: str) -> None:
        for subject in subjects:
            if relation.startswith("by "):  # `held by a man`
                self.tuples.add((thing, relation.removeprefix("by "), subject))
            elif relation in CONVERSE:
                self.tuples.add((thing, CONVERSE[relation], subject))
            else:
                self.tuples.add((subject, relation, thing))
