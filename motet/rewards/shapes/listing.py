"""The reward of the objects that a text lists: does the policy see what is in the image, whatever it concludes?"""

from __future__ import annotations

import re
from typing import Any

from motet.core.errors import DataError
from motet.rewards.base import reward
from motet.rewards.info import UNIT, RewardInfo
from motet.rewards.text.exact_match import last_text
from motet.shapes.large.vocabulary import COLOURS, SHAPES, SIZES

_NAMED = rf"(?:{'|'.join(COLOURS)}) (?:{'|'.join(SHAPES)})\b"
_UNSIZED = re.compile(rf"\b[a-p]\d{{1,2}} {_NAMED}")
_SIZED = re.compile(rf"\b[a-p]\d{{1,2}} (?:{'|'.join(SIZES)}) {_NAMED}")


@reward("listed_objects", info=RewardInfo(range=UNIT))
def listed_objects(completions: list[Any], scene: list[Any]) -> list[float | None]:
    """F1 of the objects that the last text lists with their cells (`a1 small red circle`) with those of column `scene`.

    F1 = 2 |listed and present| / (|listed| + |present|). An object counts once however often it is named, and only with
    the right cell, size, colour and shape; one of the large world that is named without its size (`so b3 green circle`)
    is mentioned, not listed. Two objects in one cell are two guesses. 0 for a text that lists nothing, unless the scene
    is empty; None for a row without a scene and for a trajectory without the act.

    The counterpart of the visual perception reward of Perception-R1 (arXiv 2506.07218) in a world whose images have
    exact descriptions.
    """
    values: list[float | None] = []
    for completion, text in zip(completions, scene, strict=True):
        if text is None or not completion:
            values.append(None)
            continue
        present = _present(text)
        listed = _objects(last_text(completion, "listed_objects"), present)
        total = len(listed) + len(present)
        values.append(2 * len(listed & present) / total if total else 1.0)
    return values


def _present(scene: Any) -> set[str]:
    """The objects of a scene as `motet.shapes.questions.describe` writes it."""
    objects = [] if scene == "nothing" else str(scene).split(", ")
    if not all(_SIZED.fullmatch(name) or _UNSIZED.fullmatch(name) for name in objects):
        raise DataError(
            f"The column 'scene' of the reward 'listed_objects' has {scene!r}; expected objects of the shapes world "
            "with their cells, such as 'a1 small red circle, c2 large blue star', or 'nothing'.",
            fix="use rows of data.source: shapes, or drop the reward.",
        )
    return set(objects)


def _objects(text: str, present: set[str]) -> set[str]:
    """The objects that a text lists; in a scene of objects with sizes only those with a size."""
    words = " ".join(text.lower().split())
    sized = set(_SIZED.findall(words))
    return sized if any(map(_SIZED.fullmatch, present)) else sized.union(_UNSIZED.findall(words))
