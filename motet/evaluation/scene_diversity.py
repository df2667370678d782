"""How varied the images of a shapes world are where prompts leave something open.

RL concentrates on what works: a policy that draws every open object in red, or in the first cell, may score higher and
has lost something. The effective number of values is `exp(entropy)` of their frequencies: 1 when all are equal, the
number of possible values when they are uniform (Hill's number of order 1).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from motet.shapes.scene import Scene

Values = list[tuple[str, str]]
"""(`colours`, `red`) and so on, for every object."""
_ATTRIBUTES = {"colours": "colour", "shapes": "shape", "sizes": "size"}


def open_values(scene: Scene, spec: Mapping[str, Any]) -> Values:
    """The colours, shapes and sizes of the objects, of those of the three that the prompt does not mention, and their
    cells, where it states no relation."""
    groups = [*spec.get("groups", ()), *(spec.get("more") or ()), *filter(None, [spec.get("absent")])]
    relations = spec.get("relations") or spec.get("relation")
    values: Values = [] if relations else [("cells", obj.cell) for obj in scene.objects]
    for name, attribute in _ATTRIBUTES.items():
        if not any(group.get(attribute) for group in groups):
            values += [(name, value) for obj in scene.objects if (value := getattr(obj, attribute))]
    return values


def effective_numbers(values: Iterable[tuple[str, str]]) -> dict[str, float]:
    """The effective number of values by name; names without a value are left out."""
    counts: dict[str, Counter[str]] = {}
    for name, value in values:
        counts.setdefault(name, Counter())[value] += 1
    return {name: round(math.exp(_entropy(counts[name])), 2) for name in sorted(counts)}


def _entropy(counts: Counter[str]) -> float:
    """In nats."""
    total = counts.total()
    return -sum(n / total * math.log(n / total) for n in counts.values())
