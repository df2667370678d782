"""The images of completions, and their pixels as tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from motet.core.errors import RewardError

T = TypeVar("T")


def last_image(completion: list[Any], name: str) -> Image.Image:
    """The last image of a completion. Raises RewardError, naming the reward, when it has none."""
    image = image_of(completion, None)
    if image is None:
        raise RewardError(
            f"Reward {name!r} got a completion without an image.", fix="name an image act in rewards.acts."
        )
    return image


def image_of(completion: Sequence[Any], act: str | None) -> Image.Image | None:
    """The last image of the act of that name (None: of any act); None if there is none."""
    for message in reversed(completion):
        if act is None or message.get("name") == act:
            for part in reversed(message["content"] if isinstance(message["content"], list) else []):
                if part.get("type") == "image":
                    return part["image"]
    return None


def scorable_images(
    completions: Sequence[Any], applies: Sequence[bool], name: str
) -> tuple[list[int], list[Image.Image]]:
    """The indices of completions to score (not empty, and `applies`), and the last image of each."""
    places = [n for n, (c, wanted) in enumerate(zip(completions, applies, strict=True)) if c and wanted]
    return places, [last_image(completions[n], name) for n in places]


def scatter_scores(count: int, places: Sequence[int], values: Sequence[float]) -> list[float | None]:
    """`count` scores: `values` at `places`, None (does not apply) elsewhere."""
    scores: list[float | None] = [None] * count
    for place, value in zip(places, values, strict=True):
        scores[place] = float(value)
    return scores


def unique_by_identity(items: Sequence[T]) -> tuple[list[T], list[int]]:
    """The distinct objects among `items`, by identity, and the place of each item among them.

    The generations of a group share their row's image, so that its features are computed once.
    """
    index: dict[int, int] = {}
    distinct: list[T] = []
    for item in items:
        if id(item) not in index:
            index[id(item)] = len(distinct)
            distinct.append(item)
    return distinct, [index[id(item)] for item in items]


def in_batches(items: Sequence[T], size: int, compute: Callable[[Sequence[T]], Iterable[Any]]) -> list[Any]:
    """`compute` over at most `size` items at a time, results in order."""
    return [result for start in range(0, len(items), size) for result in compute(items[start : start + size])]


def to_pixels(images: Sequence[Image.Image], side: int, device: torch.device) -> Float[Tensor, "B 3 S S"]:
    """Images as RGB in [0, 1], resized to `side` x `side` on the device (bilinear, antialiased, aspect ignored)."""
    rows = []
    for image in images:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        levels = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8).view(rgb.height, rgb.width, 3)
        pixels = levels.to(device).permute(2, 0, 1).unsqueeze(0).float() / 255
        if pixels.shape[-2:] != (side, side):
            pixels = F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        rows.append(pixels)
    return torch.cat(rows).clamp(0, 1)
