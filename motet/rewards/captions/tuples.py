"""Similarity of two captions: F1 over the tuples of their scene graphs.

In the manner of SPICE (Anderson et al. 2016, arXiv 1607.08822, equations 2 to 4): objects `(dog)`, attributes
`(dog, brown)`, relations `(dog, on, sofa)`. It is *not* SPICE: a small rule-based parser replaces the dependency
parser, a table of some 60 words WordNet, numerals are tuples `(dog, 2)`, and converse relations are merged
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


@lru_cache(maxsize=4096)  # a prompt is compared with the captions of all its images
def scene_tuples(caption: str) -> Tuples:
    """Objects, attributes, counts and relations of a caption."""
    scene = _Scene(chunks(caption))
    return frozenset(scene.tuples)


class _Scene:
    """Processes chunks in order, with the clause's subjects, the nearest object, and the pending relation."""

    def __init__(self, row: Sequence[Chunk]) -> None:
        self.tuples: set[tuple[str, ...]] = set()
        self.subjects: list[str] = []
        self.nearest: list[str] = []
        self.pending: tuple[list[str], str] | None = None
        self.joined: tuple[list[str], str] | None = None  # the relation that `and` may continue
        self.has_predicate = False  # whether the clause has a predicate
        self.relative = False  # inside `that ...`, a relative clause of the nearest object
        for place, chunk in enumerate(row):
            before = row[place - 1].kind if place else "stop"
            after = row[place + 1] if place + 1 < len(row) else Chunk("stop")
            self._take(chunk, before, after)

    def _take(self, chunk: Chunk, before: str, after: Chunk) -> None:
        if chunk.kind == "object":
            self._object(chunk, before, after)
        elif chunk.kind == "quality":
            self.tuples |= {(who, quality) for who in self._who() for quality in chunk.modifiers}
        elif chunk.kind == "relation":
            if self.pending is None or not self.pending[1].startswith("by "):
                self.pending = (self.nearest or self.subjects, SAME_RELATION.get(chunk.word, chunk.word))
        elif chunk.kind == "verb":
            self._verb(chunk, after)
        elif chunk.kind == "be":
            self.has_predicate = True
        elif chunk.kind == "clause" and chunk.word in ("that", "which", "who", "whose"):
            self.relative = True
        elif chunk.kind == "clause":
            self.joined, self.has_predicate = None, True
        elif chunk.kind == "stop":
            self.subjects, self.nearest, self.pending, self.joined = [], [], None, None
            self.has_predicate = self.relative = False

    def _object(self, chunk: Chunk, before: str, after: Chunk) -> None:
        name = chunk.word
        self.tuples.add((name,))
        self.tuples |= {(name, modifier) for modifier in chunk.modifiers}
        if chunk.count is not None:
            self.tuples.add((name, str(chunk.count)))
        if self.pending is not None:
            self._relate(*self.pending, name)
            self.joined, self.pending, self.has_predicate = self.pending, None, True
        elif before in ("and", "comma") and not self.has_predicate:
            self.subjects = self.nearest = [*self.subjects, name]
            return
        elif before in ("and", "comma") and self.joined is not None and after.kind not in ("verb", "be"):
            self._relate(*self.joined, name)
        else:
            self.subjects, self.has_predicate, self.joined = [name], False, None
        self.nearest = [name]

    def _verb(self, chunk: Chunk, after: Chunk) -> None:
        who = self._who()
        self.has_predicate = True
        if after.kind == "relation" and after.word == "by":
            self.pending = (who, f"by {chunk.word}")
        elif after.kind == "object":
            self.pending = (who, chunk.word)
        else:
            self.tuples |= {(subject, chunk.word) for subject in who}
            self.nearest = who

    def _who(self) -> list[str]:
        """The subjects of a predicate: after `that`, the nearest object; otherwise the clause's subjects."""
        relative, self.relative = self.relative, False
        return self.nearest if relative else self.subjects or self.nearest

    def _relate(self, subjects: Sequence[str], relation: str, obj: str) -> None:
        for subject in subjects:
            if relation.startswith("by "):  # `held by a man`
                self.tuples.add((obj, relation.removeprefix("by "), subject))
            elif relation in CONVERSE:
                self.tuples.add((obj, CONVERSE[relation], subject))
            else:
                self.tuples.add((subject, relation, obj))
