"""The pictures that a reward is shown: each decoded picture is taken as it is, and turned into a tensor once."""

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
    """The last picture of a completion. Raises RewardError, naming the reward, when it has none."""
    image = image_of(completion, None)
    if image is None:
        raise RewardError(
            f"Reward {name!r} was shown a completion without a picture.", fix="name a drawing act in rewards.acts."
        )
    return image


def image_of(completion: Sequence[Any], act: str | None) -> Image.Image | None:
    """The last picture of the act of that name (None: of any act), or None where there is none."""
    for message in reversed(completion):
        if act is None or message.get("name") == act:
            for part in reversed(message["content"] if isinstance(message["content"], list) else []):
                if part.get("type") == "image":
                    return part["image"]
    return None


def drawn(completions: Sequence[Any], applies: Sequence[bool], name: str) -> tuple[list[int], list[Image.Image]]:
    """Which completions are to be judged (not empty, and `applies`), and the last picture of each of those."""
    places = [n for n, (c, wanted) in enumerate(zip(completions, applies, strict=True)) if c and wanted]
    return places, [last_image(completions[n], name) for n in places]


def spread(count: int, places: Sequence[int], values: Sequence[float]) -> list[float | None]:
    """`count` scores: `values` at `places`, None (does not apply) elsewhere."""
    scores: list[float | None] = [None] * count
    for place, value in zip(places, values, strict=True):
        scores[place] = float(value)
    return scores


def unique_by_identity(things: Sequence[T]) -> tuple[list[T], list[int]]:
    """The distinct objects among `things`, by identity, and the place of each thing among them.

    The siblings of a group share their real picture: what is computed of it is computed once.
    """
    place: dict[int, int] = {}
    distinct: list[T] = []
    for thing in things:
        if id(thing) not in place:
            place[id(thing)] = len(distinct)
            distinct.append(thing)
    return distinct, [place[id(thing)] for thing in things]


def in_batches(things: Sequence[T], size: int, compute: Callable[[Sequence[T]], Iterable[Any]]) -> list[Any]:
    """`compute` over at most `size` things at a time, results in order."""
    return [result for start in range(0, len(things), size) for result in compute(things[start : start + size])]


def to_pixels(images: Sequence[Image.Image], side: int, device: torch.device) -> Float[Tensor, "B 3 S S"]:
    """Pictures as RGB in [0, 1], squashed to `side` x `side` on the device (bilinear, antialiased)."""
    rows = []
    for image in images:
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        levels = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8).view(rgb.height, rgb.width, 3)
        pixels = levels.to(device).permute(2, 0, 1).unsqueeze(0).float() / 255
        if pixels.shape[-2:] != (side, side):
            pixels = F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
        rows.append(pixels)
    return torch.cat(rows).clamp(0, 1)
