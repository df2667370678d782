"""Object detection: a Mask2Former of transformers finds instances of COCO's classes, under GenEval's names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from motet.core.errors import ConfigError
from motet.rewards.image.pixels import in_batches
from motet.rewards.models import load_model, load_processor

_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, computer mouse,
tv remote, computer keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
teddy bear, hair drier, toothbrush
"""
CLASSES = tuple(" ".join(name.split()) for name in _NAMES.split(","))
"""GenEval's names of COCO's 80 classes, in COCO's order; checkpoints use other names for some."""
_OTHER_NAMES = {
    "motorbike": "motorcycle", "aeroplane": "airplane", "sofa": "couch", "pottedplant": "potted plant",
    "diningtable": "dining table", "tvmonitor": "tv", "mouse": "computer mouse", "remote": "tv remote",
    "keyboard": "computer keyboard", "hair dryer": "hair drier",
}  # fmt: skip
"""Other names in checkpoints -> GenEval's."""


@dataclass(frozen=True, eq=False)
class Instance:
    """One object in an image. `box` is (left, top, right, bottom) of its mask, in pixels."""

    name: str
    score: float
    box: tuple[float, float, float, float]
    mask: Bool[Tensor, "H W"]


@dataclass(frozen=True, eq=False)
class Detector:
    """Finds instances that score above `threshold`, most confident first; `batch_size` images at a time."""

    model: Any
    image_processor: Any
    threshold: float
    batch_size: int

    @classmethod
    def open(cls, path: str, device: torch.device, *, key: str, threshold: float, batch_size: int) -> Detector:
        """Load from a folder or hub id of an instance segmentation over COCO's classes. Raises ConfigError."""
        if find_spec("scipy") is None:  # transformers requires it to build a Mask2Former
            raise ConfigError(f"{key}={path!r} needs the package scipy.", fix="pip install 'motet[detection]'.")
        from transformers import AutoImageProcessor, Mask2FormerForUniversalSegmentation

        model = load_model(Mask2FormerForUniversalSegmentation, path, device, key=key)
        if len(model.config.id2label) != len(CLASSES):
            raise ConfigError(
                f"{key}={path!r} has {len(model.config.id2label)} classes, expected COCO's {len(CLASSES)}.",
                fix="give a checkpoint such as facebook/mask2former-swin-small-coco-instance.",
            )
        for place, label in model.config.id2label.items():
            name = _OTHER_NAMES.get(label.casefold(), label.casefold())
            if name in CLASSES and name != CLASSES[int(place)]:
                raise ConfigError(
                    f"{key}={path!r} calls class {place} {label!r}; in COCO's order it is {CLASSES[int(place)]!r}.",
                    fix="give a checkpoint whose id2label has COCO's order.",
                )
        return cls(model, load_processor(AutoImageProcessor, path, key=key), threshold, batch_size)

    def __call__(self, images: Sequence[Image.Image]) -> list[list[Instance]]:
        """The instances of each image.

        All images of a batch have one size: processors pad smaller ones, and transformers' post-processing treats the
        padding as part of the image, which shifts the boxes.
        """
        found: dict[int, list[Instance]] = {}
        for size in dict.fromkeys(image.size for image in images):
            places = [place for place, image in enumerate(images) if image.size == size]
            found |= zip(
                places, in_batches([images[place] for place in places], self.batch_size, self._find), strict=True
            )
        return [found[place] for place in range(len(images))]

    @torch.no_grad()
    def _find(self, images: Sequence[Image.Image]) -> list[list[Instance]]:
        inputs = self.image_processor(images=list(images), return_tensors="pt").to(self.model.device)
        found = self.image_processor.post_process_instance_segmentation(
            self.model(**inputs),
            threshold=self.threshold,
            target_sizes=[(image.height, image.width) for image in images],
            return_binary_maps=True,
        )
        return [_instances(one["segmentation"], one["segments_info"]) for one in found]


def _instances(masks: Tensor, detections: Sequence[dict[str, Any]]) -> list[Instance]:
    instances = [
        Instance(CLASSES[info["label_id"]], float(info["score"]), box_of(masks[n] > 0), (masks[n] > 0).cpu())
        for n, info in enumerate(detections)
    ]
    return sorted(instances, key=lambda instance: -instance.score)


def box_of(mask: Bool[Tensor, "H W"]) -> tuple[float, float, float, float]:
    """The smallest box around a non-empty mask."""
    rows, columns = mask.any(dim=1).nonzero()[:, 0], mask.any(dim=0).nonzero()[:, 0]
    return float(columns[0]), float(rows[0]), float(columns[-1]) + 1, float(rows[-1]) + 1
