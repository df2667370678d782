"""Which entities a text names, and which share of them a caption covers.

CoRL (arXiv 2505.17534, appendix A.1) chose as prompts those COCO captions that cover the entities of the problem's
solution; how it found entities is not published. Here it is the caption reader of the reward `tuple_f1`: an entity is a
word that names a thing, or says of what kind it is, in its singular and without synonyms. No lexical database, no
named-entity model, no parser: verbs that stand alone (`skateboarding`) count as what they are the form of, and a word
that the reader does not know is taken for a noun.

What the published column `concept_coverage` counts may be something else: of 32 rows that could be read, all with
coverage 1, the prompt holds the entities of `qa_solution` in 12, and those of `cls_solution`, COCO's category, in all
32. To cover categories instead of answers, give them in a column `entities`.
"""

from __future__ import annotations

from functools import lru_cache

from motet.rewards.captions.chunks import chunks
from motet.rewards.captions.lexicon import PARTICIPLES
from motet.rewards.captions.tuples import scene_tuples

NO_ENTITIES = frozenset({"yes", "no", "none", "unk", "unknown", "true", "false", "because"}) | frozenset(
    {"he", "she", "they", "them", "him", "we", "you"}
)
"""Words of answers that the reader takes for things."""


def entities(text: str) -> frozenset[str]:
    """The words that name a text's things and their kinds: `two red buses` has `bus` and `red`.

    Numbers and single letters are none.
    """
    things = [chunk for chunk in chunks(text) if chunk.kind in ("thing", "quality")]
    words = [word for thing in things for word in (thing.word, *thing.modifiers) if word]
    return frozenset(PARTICIPLES.get(word, word) for word in words if len(word) > 1) - NO_ENTITIES


def coverage(wanted: frozenset[str], caption: str) -> float:
    """The share of `wanted`, which is not empty, that the caption's words hold, in [0, 1]."""
    return len(wanted & _words(caption)) / len(wanted)


@lru_cache(maxsize=4096)  # an image's captions meet all of its questions
def _words(caption: str) -> frozenset[str]:
    """Every word of the caption's scene graph: things, kinds, verbs, relations."""
    return entities(caption) | {word for parts in scene_tuples(caption) for word in parts}
