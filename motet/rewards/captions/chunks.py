"""Parse a caption into a flat list of chunks: objects with modifiers, relations, verbs, and clause separators."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from motet.rewards.captions.lexicon import (
    ADJECTIVES,
    AFTER_NOUNS,
    BE,
    CAUSATIVES,
    CLAUSES,
    COMPOUNDS,
    DETERMINERS,
    FILLERS,
    FINITE,
    IMPERATIVES,
    NOUN_OR_VERB,
    NUMBERS,
    PARTICIPLES,
    PHRASES,
    PLAIN,
    RELATIONS,
    canonical,
    is_plural,
    singular,
)

_TOKEN = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[.,;:!?]")
_DASH = re.compile(r"—|--+|(?<!\d)–|–(?!\d)|\s-\s|[()\[\]/|•]")
"""Separators that are treated as commas."""
_PARENTHESES = (["object", "comma"], ["verb", "comma"], ["quality", "comma"])
"""Chunks before a comma after which a predicate may follow."""
_BEGINNINGS = DETERMINERS | NUMBERS.keys() | RELATIONS
"""Words that start a new chunk."""
_LONGEST = max(map(len, PHRASES))

Kind = Literal["object", "quality", "relation", "verb", "be", "and", "comma", "clause", "stop"]


@dataclass(frozen=True)
class Chunk:
    """An object: its head `word`, its `modifiers` and its count (None: not given). Other kinds have only the word.

    A quality is a predicate of adjectives (`is red and round`): its words are all in `modifiers`.
    """

    kind: Kind
    word: str = ""
    modifiers: tuple[str, ...] = ()
    count: int | None = None


def chunks(caption: str) -> list[Chunk]:
    """The chunks of a caption, in order."""
    parser = _Parser()
    plain = _DASH.sub(" , ", caption.lower().replace("’", "'").replace("…", "."))
    words = _merged(_TOKEN.findall(plain.replace("t-shirt", "shirt").replace("-", " ")))
    for word, following in zip(words, [*words[1:], "."], strict=False):
        parser.read(word, following)
    parser.close()
    return parser.chunks


def _merged(tokens: list[str]) -> list[str]:
    """Tokens with phrases replaced by their meaning, longest first."""
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


class _Parser:
    """Parses word by word; an open object collects words until it is closed."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []
        self.words: list[str] = []
        self.count: int | None = None
        self.has_determiner = False  # by a determiner or a number
        self.causes = False  # the clause has a verb whose object may do something
        self.infinitive = False  # the previous word was `to`

    def read(self, word: str, following: str) -> None:
        if word in IMPERATIVES and not (self.chunks or self.words or self.has_determiner):
            return
        if (
            word == ","
            and self.words
            and self.has_determiner
            and self._only_adjectives()
            and following not in _BEGINNINGS
        ):
            return  # `a big, red bus`
        if word == "to" and following in PLAIN:
            self.close()
            self.infinitive = True
        elif word in ",;:" or word in ".!?":
            self._emit("comma" if word == "," else "stop")
        elif word in RELATIONS:
            self._emit("relation", word)
        elif word in BE:
            self._emit("be")
        elif word in CLAUSES:
            self._emit("clause", word)
        elif word in ("and", "or", "&"):
            if not (self.words and following in ADJECTIVES and self._only_adjectives()):
                self._emit("and")
        elif word in DETERMINERS or word in NUMBERS:
            self.close()
            self.has_determiner, self.count = True, NUMBERS.get(word)
        elif word not in FILLERS:
            self._take(word, following)

    def _take(self, word: str, following: str) -> None:
        """A word of an open class: a verb, or a word of the open object."""
        bare = word in PLAIN and (self.infinitive or (self.causes and bool(self.words) and not self._only_adjectives()))
        verb = word if bare else self._verb(word, following)
        self.infinitive = False
        if verb is None:
            self.words.append(word)
            return
        if bare:
            self._emit("clause", "that")  # of the nearest object
        self._emit("verb", canonical(verb))
        self.causes = verb in CAUSATIVES

    def _only_adjectives(self) -> bool:
        return all(word in ADJECTIVES for word in self.words)

    def close(self) -> None:
        """Close the open object, if there is one."""
        if self.words:
            words = [canonical(word) for word in self.words]
            is_predicate = bool(self.chunks) and self.chunks[-1].kind == "be"
            added = [chunk.kind for chunk in self.chunks[-2:]] == ["object", "comma"]  # `a dog (brown)`
            if (is_predicate or added) and not self.has_determiner and self._only_adjectives():
                self.chunks.append(Chunk("quality", modifiers=tuple(words)))
            else:
                modifiers = [PARTICIPLES.get(raw, word) for raw, word in zip(self.words, words, strict=True)]
                head = len(words) - 1
                while head and self.words[head] in AFTER_NOUNS and not self._only_adjectives():
                    head -= 1
                others = (*modifiers[:head], *modifiers[head + 1 :])
                self.chunks.append(Chunk("object", words[head], others, self.count))
        self.words, self.count, self.has_determiner = [], None, False

    def _emit(self, kind: Kind, word: str = "") -> None:
        self.close()
        self.chunks.append(Chunk(kind, word))
        if kind in ("stop", "clause", "relation"):
            self.causes = False

    def _verb(self, word: str, following: str) -> str | None:
        """The verb that a word is in this position: after an object, or as a predicate; never right after `a`."""
        named = singular(following) in COMPOUNDS.get(word, ())  # `sailing ship`
        if not self.words:
            kinds = [chunk.kind for chunk in self.chunks[-2:]] if self.chunks and not self.has_determiner else ["comma"]
            if kinds in _PARENTHESES and (following in _BEGINNINGS or following in ",.;:!?"):
                return PARTICIPLES.get(word) or FINITE.get(word)  # `a man, wearing a hat, sits on a bench`
            predicate = kinds[-1] in ("be", "clause", "object", "and", "verb")
            return PARTICIPLES.get(word) if predicate and not named else None
        if self._only_adjectives() or named:  # the noun is still to come
            return None
        if word in NOUN_OR_VERB and following not in _BEGINNINGS - RELATIONS:
            return None
        if word in PARTICIPLES:
            return PARTICIPLES[word]
        several = is_plural(self.words[-1]) or (self.count or 1) > 1
        if several:
            return word if word in PLAIN else None
        return FINITE.get(word)
