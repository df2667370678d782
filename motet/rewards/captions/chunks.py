"""Caption -> a flat row of chunks: things with their modifiers, relations, verbs, and what separates clauses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from motet.rewards.captions.lexicon import (
    ADJECTIVES,
    BE,
    CLAUSES,
    DETERMINERS,
    FILLERS,
    FINITE,
    NUMBERS,
    PARTICIPLES,
    PHRASES,
    PLAIN,
    RELATIONS,
    canonical,
    is_plural,
)

_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[.,;:!?]")
_LONGEST = max(map(len, PHRASES))

Kind = Literal["thing", "quality", "relation", "verb", "be", "and", "comma", "clause", "stop"]


@dataclass(frozen=True)
class Chunk:
    """A thing: its head `word`, its `modifiers` and how many it is (None: not said). Of other kinds only the word.

    A quality is what a thing is said to be (`is red and round`): its words are all in `modifiers`.
    """

    kind: Kind
    word: str = ""
    modifiers: tuple[str, ...] = ()
    count: int | None = None


def chunks(caption: str) -> list[Chunk]:
    """The chunks of a caption, in order."""
    reader = _Reader()
    words = _merged(_TOKEN.findall(caption.lower().replace("’", "'").replace("t-shirt", "shirt").replace("-", " ")))
    for word, following in zip(words, [*words[1:], "."], strict=False):
        reader.read(word, following)
    reader.close()
    return reader.chunks


def _merged(tokens: list[str]) -> list[str]:
    """Tokens with phrases replaced by what they mean, longest first."""
    words: list[str] = []
    place = 0
    while place < len(tokens):
        for length in range(_LONGEST, 0, -1):
            meaning = PHRASES.get(tuple(tokens[place : place + length]))
            if meaning is not None:
                words += [meaning] if meaning else []
                place += length
                break
        else:
            words.append(tokens[place].removesuffix("'s"))
            place += 1
    return words


class _Reader:
    """Reads words one by one; an open thing gathers its words until something ends it."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.words: list[str] = []
        self.count: int | None = None
        self.begun = False  # by a determiner or a number

    def read(self, word: str, following: str) -> None:
        if word in ",;:" or word in ".!?":
            self._emit("comma" if word == "," else "stop")
        elif word in RELATIONS:
            self._emit("relation", word)
        elif word in BE:
            self._emit("be")
        elif word in CLAUSES:
            self._emit("clause", word)
        elif word in ("and", "or", "&"):
            if not (self.words and following in ADJECTIVES and all(w in ADJECTIVES for w in self.words)):
                self._emit("and")
        elif word in DETERMINERS or word in NUMBERS:
            self.close()
            self.begun, self.count = True, NUMBERS.get(word)
        elif word not in FILLERS:
            verb = self._verb(word)
            if verb is None:
                self.words.append(word)
            else:
                self._emit("verb", canonical(verb))

    def close(self) -> None:
        """End the open thing, if there is one."""
        if self.words:
            words = [canonical(word) for word in self.words]
            said = bool(self.chunks) and self.chunks[-1].kind == "be"
            if said and not self.begun and all(word in ADJECTIVES for word in self.words):
                self.chunks.append(Chunk("quality", modifiers=tuple(words)))
            else:
                modifiers = [PARTICIPLES.get(raw, word) for raw, word in zip(self.words, words, strict=True)]
                self.chunks.append(Chunk("thing", words[-1], tuple(modifiers[:-1]), self.count))
        self.words, self.count, self.begun = [], None, False

    def _emit(self, kind: Kind, word: str = "") -> None:
        self.close()
        self.chunks.append(Chunk(kind, word))

    def _verb(self, word: str) -> str | None:
        """The verb that a word is here: after a thing, or in the place of a predicate; never right after `a`."""
        if not self.words:
            previous = self.chunks[-1].kind if self.chunks and not self.begun else "comma"
            return PARTICIPLES.get(word) if previous in ("be", "clause", "thing", "and", "verb") else None
        if all(w in ADJECTIVES for w in self.words):  # the thing itself is still to come
            return None
        if word in PARTICIPLES:
            return PARTICIPLES[word]
        several = is_plural(self.words[-1]) or (self.count or 1) > 1
        if several:
            return word if word in PLAIN else None
        return FINITE.get(word)
