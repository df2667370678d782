"""GenEval (Ghosh et al. 2023, arXiv 2310.11513): objects of a prompt, in number, colour and position.

The formulas are those of its released code, the detector is the same model in transformers' layout.
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
from motet.rewards.image.pixels import scatter_scores, scorable_images
from motet.rewards.info import DEVICE, RewardInfo
from motet.rewards.models import device_of
from motet.rewards.options import check_choice, check_int, check_non_empty, check_number

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = ("a photo of a {c} {name}", "a photo of a {c}-colored {name}", "a photo of a {c} object")
RELATIONS = ("left of", "right of", "above", "below")
SCORES = ("partial", "strict", "correct")
MAX_INSTANCES, POSITION_TOLERANCE, CROP_BACKGROUND = 16, 0.1, "#999"
"""Most instances per class; tolerance of positions as a fraction of both sizes; background of crops."""

ClassifyColours = Callable[[Sequence[Instance], str], list[str]]
"""(instances, class name) -> their colours."""


@dataclass(frozen=True)
class Thresholds:
    """Scores above which an instance counts: in general, and for prompts about counting."""

    general: float = 0.3
    counting: float = 0.9


@reward(
    "gen_eval",
    info=RewardInfo(
        range="[0, 1]; with score: correct 0 or 1",
        model="Mask2Former (facebook/mask2former-swin-small-coco-instance), CLIP (openai/clip-vit-large-patch14)",
        license="see its model card; MIT",
        size="69 M and 428 M parameters",
        runs=DEVICE,
        extra="detection",
    ),
)
@dataclass(eq=False, kw_only=True)
class GenEval(ModelReward):
    """Whether the image satisfies the row's `include`: GenEval, by Mask2Former and CLIP.

    `score`: `correct` is GenEval's own result (at least the requested count; 1 or 0), `strict` requires the exact
    count, `partial` is the mean over clauses (distance of the count, fraction of correct colours, position), each in
    [0, 1]: the reward of UniRL-Zero and Flow-GRPO, except that it is never below 0 and counts a failed position once.
    `include` and `exclude` are lists of {class, count, color, position: [relation, index in include]}; rows whose `tag`
    is `counting` count only instances that score above `counting_threshold`. `detector` and `clip` are folders or hub
    ids. A row without `include` gets None.
    """

    name: ClassVar[str] = "gen_eval"

    detector: Any = None
    clip: Any = None
    score: Any = "partial"
    threshold: Any = Thresholds.general
    counting_threshold: Any = Thresholds.counting
    batch_size: Any = 8
    _detector: Detector = field(init=False)
    _clip: Clip = field(init=False)

    def __post_init__(self) -> None:
        check_non_empty(self.name, "detector", self.detector, "path of a Mask2Former")
        check_non_empty(self.name, "clip", self.clip, "path of a CLIP model")
        check_choice(self.name, "score", self.score, SCORES)
        check_number(self.name, "threshold", self.threshold, 0.0, 1.0)
        check_number(self.name, "counting_threshold", self.counting_threshold, self.threshold, 1.0)
        check_int(self.name, "batch_size", self.batch_size)

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
        """One score per completion, from its last image."""
        places, images = scorable_images(completions, [asked is not None for asked in include], self.name)
        excluded, tags = exclude or [None] * len(include), tag or [None] * len(include)
        asked = [GenEvalSpec.of(include[place], excluded[place], tags[place]) for place in places]
        thresholds = Thresholds(self.threshold, self.counting_threshold)
        results = evaluate_images(images, asked, self._detector, self._clip, thresholds)
        return scatter_scores(len(completions), places, [getattr(result, self.score) for result in results])


@dataclass(frozen=True)
class GenEvalSpec:
    """The clauses that an image must satisfy, and those that it must not; whether the prompt is about counting."""

    include: Sequence[Mapping[str, Any]]
    exclude: Sequence[Mapping[str, Any]]
    counting: bool = False

    @classmethod
    def of(cls, include: Any, exclude: Any, tag: Any) -> GenEvalSpec:
        """The specification of a row of GenEval's file. Raises DataError for invalid clauses."""
        return cls(clauses(include), clauses(exclude), tag == "counting")


@dataclass(frozen=True)
class GenEvalResult:
    """`correct` and `strict` are 1 or 0, `partial` is the mean over clauses; `counts` are the instances by class."""

    correct: float
    strict: float
    partial: float
    counts: Mapping[str, int] = field(default_factory=dict)


def evaluate_images(
    images: Sequence[Image.Image],
    asked: Sequence[GenEvalSpec],
    detector: Callable[[Sequence[Image.Image]], list[list[Instance]]],
    clip: Any,
    thresholds: Thresholds,
) -> list[GenEvalResult]:
    """GenEval's result for each image, by instances of a `Detector` and colours of a `Clip`."""
    results = []
    for image, spec, found in zip(images, asked, detector(images), strict=True):
        above = thresholds.counting if spec.counting else thresholds.general
        confident = [instance for instance in found if instance.score > above]
        results.append(evaluate_clauses(confident, spec, _ColourClassifier(image, clip)))
    return results


def clauses(given: Any) -> list[Mapping[str, Any]]:
    """A row's validated clauses, without the None values that Parquet adds. Raises DataError."""
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
                f"The clause {dict(clause)} is not a valid GenEval clause.",
                fix="write {class: NAME OF COCO, count: N, color: COLOUR, position: [left of, EARLIER CLAUSE]}.",
            )
    return read


def evaluate_clauses(found: Sequence[Instance], asked: GenEvalSpec, classify_colours: ClassifyColours) -> GenEvalResult:
    """GenEval's result for detected instances, most confident first; those determine colours and positions."""
    groups: dict[str, list[Instance]] = {}
    for instance in found:
        groups.setdefault(instance.name, []).append(instance)
    groups = {name: own[:MAX_INSTANCES] for name, own in groups.items()}
    right, _ = _evaluate_all(groups, asked.include, classify_colours, strict=False)
    exactly, parts = _evaluate_all(groups, asked.include, classify_colours, strict=True)
    forbidden = any(len(groups.get(clause["class"], [])) >= clause["count"] for clause in asked.exclude)
    return GenEvalResult(
        correct=float(right and not forbidden),
        strict=float(exactly and not forbidden),
        partial=sum(parts) / len(parts) if parts else 0.0,
        counts={name: len(own) for name, own in groups.items()},
    )


def _evaluate_all(
    groups: Mapping[str, list[Instance]],
    include: Sequence[Mapping[str, Any]],
    classify_colours: ClassifyColours,
    *,
    strict: bool,
) -> tuple[bool, list[float]]:
    """Whether all clauses are satisfied, and the degree of each of their parts."""
    satisfied: list[list[Instance]] = []
    parts: list[float] = []
    for clause in include:
        group, degrees = _evaluate_clause(clause, groups.get(clause["class"], []), satisfied, classify_colours, strict)
        satisfied.append(group)
        parts += degrees
    return all(satisfied), parts


def _evaluate_clause(
    clause: Mapping[str, Any],
    found: list[Instance],
    before: Sequence[list[Instance]],
    classify_colours: ClassifyColours,
    strict: bool,
) -> tuple[list[Instance], list[float]]:
    """Instances that satisfy the clause (none if it fails), and the degrees of count, colour and position."""
    wanted = clause["count"]
    degrees = [max(0.0, 1 - abs(wanted - len(found)) / wanted)]
    holds = len(found) == wanted if strict else len(found) >= wanted
    group = found[:wanted]
    if "color" in clause:
        degrees.append(classify_colours(group, clause["class"]).count(clause["color"]) / wanted if holds else 0.0)
        holds = holds and degrees[-1] == 1
    if "position" in clause:
        relation, target = clause["position"]
        others = before[target]
        holds = holds and bool(others) and all(relation in relations(a, b) for a in group for b in others)
        degrees.append(float(holds))
    return group if holds else [], degrees


def relations(one: Instance, other: Instance) -> set[str]:
    """Relations of one instance to another, from the offset of their centres less a tenth of their sizes.

    A direction counts if it is more than half of the plain offset's length, as in GenEval.
    """
    (left, top, right, bottom), (left_, top_, right_, bottom_) = one.box, other.box
    dx, dy = (left + right - left_ - right_) / 2, (top + bottom - top_ - bottom_) / 2
    slack = POSITION_TOLERANCE * (right - left + right_ - left_), POSITION_TOLERANCE * (bottom - top + bottom_ - top_)
    far = [math.copysign(max(abs(d) - s, 0.0), d) for d, s in zip((dx, dy), slack, strict=True)]
    if all(abs(d) < 1e-3 for d in far):
        return set()
    x, y = (d / math.hypot(dx, dy) for d in far)
    held = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {name for name, holds in held.items() if holds}


@dataclass(frozen=True, eq=False)
class _ColourClassifier:
    """The colours of objects by CLIP: each is cropped, on grey, and compared with the names of ten colours."""

    image: Image.Image
    clip: Any

    def __call__(self, instances: Sequence[Instance], name: str) -> list[str]:
        crops = [self._crop(instance) for instance in instances]
        similar = self.clip.images(crops) @ self._colour_embeddings(name).T
        return [COLOURS[n] for n in similar.argmax(dim=1).tolist()]

    def _colour_embeddings(self, name: str) -> torch.Tensor:
        texts = [template.format(c=colour, name=name) for colour in COLOURS for template in TEMPLATES]
        each = self.clip.texts(texts).view(len(COLOURS), len(TEMPLATES), -1)
        return F.normalize(each.mean(dim=1), dim=-1)

    def _crop(self, instance: Instance) -> Image.Image:
        mask = Image.fromarray(instance.mask.mul(255).byte().numpy())
        background = Image.new("RGB", self.image.size, CROP_BACKGROUND)
        left, top, right, bottom = map(int, instance.box)
        return Image.composite(self.image.convert("RGB"), background, mask).crop((left, top, right, bottom))
