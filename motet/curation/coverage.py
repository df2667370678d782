"""The entities of a text, and the fraction of them that a caption covers.

CoRL (arXiv 2505.17534, appendix A.1) chose as prompts those COCO captions that cover the entities of the problem's
solution; how it found entities is not published. Here it is the caption parser of the reward `tuple_f1`: an entity is
a noun or a modifier, in its singular and with synonyms merged. No lexical database, no named-entity model: verbs
without a subject (`skateboarding`) are reduced to their base form, and an unknown word is treated as a noun.

What the published column `concept_coverage` counts may be something else: of 32 rows that are public, all with coverage
1, the prompt contains the entities of `qa_solution` in 12, and those of `cls_solution`, COCO's category, in all 32. To
cover categories instead of answers, give them in a column `entities`.
"""

from __future__ import annotations

from functools import lru_cache

from motet.rewards.captions.chunks import chunks
from motet.rewards.captions.lexicon import PARTICIPLES
from motet.rewards.captions.tuples import scene_tuples

NO_ENTITIES = frozenset({"yes", "no", "none", "unk", "unknown", "true", "false", "because"}) | frozenset(
    {"he", "she", "they", "them", "him", "we", "you"}
)
"""Words of answers that the parser would treat as nouns."""


def entities(text: str) -> frozenset[str]:
    """The nouns and modifiers of a text, without numbers and single letters: `bus` and `red` of `two red buses`."""
    found = [chunk for chunk in chunks(text) if chunk.kind in ("object", "quality")]
    words = [word for chunk in found for word in (chunk.word, *chunk.modifiers) if word]
    return frozenset(PARTICIPLES.get(word, word) for word in words if len(word) > 1) - NO_ENTITIES


def coverage(target_entities: frozenset[str], caption: str) -> float:
    """The fraction of `target_entities` (not empty) that the caption contains, in [0, 1]."""
    return len(target_entities & _words(caption)) / len(target_entities)


@lru_cache(maxsize=4096)  # an image's captions are compared with all of its questions
def _words(caption: str) -> frozenset[str]:
    """Every word of the caption's scene graph: nouns, modifiers, verbs, relations."""
    return entities(caption) | {word for parts in scene_tuples(caption) for word in parts}
