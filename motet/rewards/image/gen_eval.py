"""GenEval (Ghosh et al. 2023, arXiv 2310.11513): are the things there that a prompt asks for, so many, of this colour,
and placed so? Its formulas are those of its released code, its detector the same model in transformers' layout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from PIL import Image
from torch.nn import functional as F

from motet.core.errors import DataError
from motet.core.protocols import Policy
from motet.rewards.base import ModelReward, reward
from motet.rewards.image.clip import Clip
from motet.rewards.image.detector import CLASSES, Detector, Instance
from motet.rewards.image.pixels import drawn, spread
from motet.rewards.models import device_of
from motet.rewards.options import filled, number, one_of, whole

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = ("a photo of a {c} {name}", "a photo of a {c}-colored {name}", "a photo of a {c} object")
RELATIONS = ("left of", "right of", "above", "below")
SCORES = ("partial", "strict", "correct")
MOST, SLACK, GREY = 16, 0.1, "#999"
"""Instances of a class that count; share of both sizes that a position may be off; what surrounds a crop."""

DiffusionSamples = Callable[[Sequence[Instance], str], list[str]]
"""Instances and what they are -> their colours."""


@reward("gen_eval")
@dataclass(eq=False, kw_only=True)
class GenEval(ModelReward):
    """Whether the drawing holds what the row's `include` asks for: GenEval, by Mask2Former and CLIP.

    `score`: `correct` is GenEval's own verdict (at least so many; 1 or 0), `strict` wants exactly so many, `partial` is
    the mean over clauses (how near the count is, the share of right colours, the position), each in [0, 1]: the reward
    of UniRL-Zero and Flow-GRPO but for two things of ours, it never falls below 0 and counts a failed position once.
    `include` and `exclude` are lists of {class, count, color, position: [relation, place in
    include]}; rows whose `tag` is `counting` count only what scores above `counting_threshold`. `detector` and `clip`
    are folders or hub ids. A row without `include` gets None.
    """

    name: ClassVar[str] = "gen_eval"

    detector: Any = None
    clip: Any = None
    score: Any = "partial"
    threshold: Any = 0.3
    counting_threshold: Any = 0.9
    batch_size: Any = 8
    _detector: Detector = field(init=False)
    _clip: Clip = field(init=False)

    def __post_init__(self) -> None:
        filled(self.name, "detector", self.detector, "path of a Mask2Former")
        filled(self.name, "clip", self.clip, "path of a CLIP model")
        one_of(self.name, "score", self.score, SCORES)
        number(self.name, "threshold", self.threshold, 0.0, 1.0)
        number(self.name, "counting_threshold", self.counting_threshold, self.threshold, 1.0)
        whole(self.name, "batch_size", self.batch_size)

    def prepare(self, policy: Policy) -> None:
        device, size = device_of(policy), self.batch_size
        key = f"rewards.options.{{}} of {self.name!r}"
        threshold = float(self.threshold)
        self._detector = Detector.open(
            self.detector, device, key=key.format("detector"), threshold=threshold, batch_size=size
        )
        self._clip = Clip.open(self.clip, device, key=key.format("clip"), batch_size=size)

    def __call__(
        self,
        completions: list[Any],
        include: list[Any],
        exclude: list[Any] | None = None,
        tag: list[Any] | None = None,
    ) -> list[float | None]:
        """One score per completion, from its last picture."""
        places, images = drawn(completions, [asked is not None for asked in include], self.name)
        values: list[float] = []
        for place, image, found in zip(places, images, self._detector(images), strict=True):
            asked = GenEvalSpec(clauses(include[place]), clauses(None if exclude is None else exclude[place]))
            counting = tag is not None and tag[place] == "counting"
            sure = [one for one in found if one.score > (self.counting_threshold if counting else self.threshold)]
            values.append(getattr(evaluate_clauses(sure, asked, _ColourClassifier(image, self._clip)), self.score))
        return spread(len(completions), places, values)


@dataclass(frozen=True)
class GenEvalSpec:
    """What a row asks for, and what it forbids."""

    include: Sequence[Mapping[str, Any]]
    exclude: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Verdict:
    """1 or 0, and the mean over clauses."""

    correct: float
    strict: float
    partial: float


def clauses(given: Any) -> list[Mapping[str, Any]]:
    """A row's clauses, checked; what parquet fills with None is left out. Raises DataError."""
    read: list[Mapping[str, Any]] = [
        {key: value for key, value in clause.items() if value is not None} for clause in given or []
    ]
    for place, clause in enumerate(read):
        relation, target = clause.get("position", ("above", 0))
        if (
            clause.get("class") not in CLASSES
            or not clause.get("count")
            or clause.get("color", "red") not in COLOURS
            or relation not in RELATIONS
            or ("position" in clause and not 0 <= target < place)
        ):
            raise DataError(
                f"The clause {dict(clause)} is none of GenEval's.",
                fix="write {class: NAME OF COCO, count: N, color: COLOUR, position: [left of, EARLIER CLAUSE]}.",
            )
    return read


def evaluate_clauses(found: Sequence[Instance], asked: GenEvalSpec, painted: DiffusionSamples) -> Verdict:
    """GenEval's verdict on what was found, the surest first. Colours and positions are those of the surest."""
    groups: dict[str, list[Instance]] = {}
    for instance in found:
        groups.setdefault(instance.name, []).append(instance)
    groups = {name: own[:MOST] for name, own in groups.items()}
    right, _ = _walk(groups, asked.include, painted, strict=False)
    exactly, parts = _walk(groups, asked.include, painted, strict=True)
    forbidden = any(len(groups.get(clause["class"], [])) >= clause["count"] for clause in asked.exclude)
    return Verdict(
        correct=float(right and not forbidden),
        strict=float(exactly and not forbidden),
        partial=sum(parts) / len(parts) if parts else 0.0,
    )


def _walk(
    groups: Mapping[str, list[Instance]],
    include: Sequence[Mapping[str, Any]],
    painted: DiffusionSamples,
    *,
    strict: bool,
) -> tuple[bool, list[float]]:
    """Whether all clauses hold, and the degree of each of their parts."""
    held: list[list[Instance]] = []
    parts: list[float] = []
    for clause in include:
        group, degrees = _match(clause, groups.get(clause["class"], []), held, painted, strict)
        held.append(group)
        parts += degrees
    return all(held), parts


def _match(
    clause: Mapping[str, Any],
    found: list[Instance],
    before: Sequence[list[Instance]],
    painted: DiffusionSamples,
    strict: bool,
) -> tuple[list[Instance], list[float]]:
    """What satisfies the clause, nothing where it does not hold; and the degrees of count, colour and position."""
    wanted = clause["count"]
    degrees = [max(0.0, 1 - abs(wanted - len(found)) / wanted)]
    holds = len(found) == wanted if strict else len(found) >= wanted
    group = found[:wanted]
    if "color" in clause:
        degrees.append(painted(group, clause["class"]).count(clause["color"]) / wanted if holds else 0.0)
        holds = holds and degrees[-1] == 1
    if "position" in clause:
        relation, target = clause["position"]
        others = before[target]
        holds = holds and bool(others) and all(relation in relations(a, b) for a in group for b in others)
        degrees.append(float(holds))
    return group if holds else [], degrees


def relations(one: Instance, other: Instance) -> set[str]:
    """How one stands to another: the offset of their centres less a tenth of their sizes, as far as it is half of it.

    Over the length of the plain offset, as GenEval has it.
    """
    (left, top, right, bottom), (left_, top_, right_, bottom_) = one.box, other.box
    dx, dy = (left + right - left_ - right_) / 2, (top + bottom - top_ - bottom_) / 2
    slack = SLACK * (right - left + right_ - left_), SLACK * (bottom - top + bottom_ - top_)
    far = [math.copysign(max(abs(d) - s, 0.0), d) for d, s in zip((dx, dy), slack, strict=True)]
    if all(abs(d) < 1e-3 for d in far):
        return set()
    x, y = (d / math.hypot(dx, dy) for d in far)
    held = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {name for name, holds in held.items() if holds}


@dataclass(frozen=True, eq=False)
class _ColourClassifier:
    """The colours of things in a picture, by CLIP: each is cut out, on grey, and compared with ten colours' names."""

    image: Image.Image
    clip: Any

    def __call__(self, instances: Sequence[Instance], name: str) -> list[str]:
        crops = [self._crop(instance) for instance in instances]
        similar = self.clip.images(crops) @ self._names(name).T
        return [COLOURS[n] for n in similar.argmax(dim=1).tolist()]

    def _names(self, name: str) -> torch.Tensor:
        texts = [template.format(c=colour, name=name) for colour in COLOURS for template in TEMPLATES]
        each = self.clip.texts(texts).view(len(COLOURS), len(TEMPLATES), -1)
        return F.normalize(each.mean(dim=1), dim=-1)

    def _crop(self, instance: Instance) -> Image.Image:
        mask = Image.fromarray(instance.mask.mul(255).byte().numpy())
        blank = Image.new("RGB", self.image.size, GREY)
        left, top, right, bottom = map(int, instance.box)
        return Image.composite(self.image.convert("RGB"), blank, mask).crop((left, top, right, bottom))
