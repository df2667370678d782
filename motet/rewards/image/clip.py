"""Rewards by CLIP: similarity of image and prompt, of two images, and the direction of an edit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from motet.core.protocols import Policy
from motet.rewards.base import ModelReward, reward
from motet.rewards.image.pairwise import ImagePairReward
from motet.rewards.image.pixels import in_batches, scatter_scores, scorable_images, unique_by_identity
from motet.rewards.info import DEVICE, RewardInfo
from motet.rewards.models import device_of, load_model, load_processor
from motet.rewards.options import check_int, check_non_empty, check_number
from motet.rewards.text.multiple_choice import text_of_question

CLIP = RewardInfo(
    range="[-1, 1]",
    model="any CLIPModel of transformers (openai/clip-vit-large-patch14)",
    license="MIT",
    size="428 M parameters",
    runs=DEVICE,
)
MIN_DIRECTION = 1e-3
"""Length below which a difference of unit embeddings counts less as a direction: rounding alone has one."""


@dataclass(frozen=True, eq=False)
class Clip:
    """A CLIP model with its tokenizer and image processor; embeddings have length 1. `batch_size` inputs at a time."""

    model: Any
    tokenizer: Any
    image_processor: Any
    batch_size: int

    @classmethod
    def open(
        cls, path: str, device: torch.device, *, key: str, batch_size: int, dtype: torch.dtype = torch.float32
    ) -> Clip:
        """Load from a folder or hub id of a transformers CLIPModel. Raises ConfigError naming `key`."""
        from transformers import AutoImageProcessor, AutoTokenizer, CLIPModel

        return cls(
            load_model(CLIPModel, path, device, key=key, dtype=dtype),
            load_processor(AutoTokenizer, path, key=key),
            load_processor(AutoImageProcessor, path, key=key),
            batch_size,
        )

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Embeddings of texts; equal ones are computed once, too long ones are truncated."""
        distinct = list(dict.fromkeys(texts))
        table = torch.stack(in_batches(distinct, self.batch_size, self._embed_texts))
        return table[[distinct.index(text) for text in texts]]

    @torch.no_grad()
    def images(self, images: Sequence[Image.Image]) -> Float[Tensor, "B D"]:
        """Embeddings of images; one that occurs several times is computed once."""
        distinct, places = unique_by_identity(images)
        return torch.stack(in_batches(distinct, self.batch_size, self._embed_images))[places]

    def _embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        longest = self.model.config.text_config.max_position_embeddings
        found = self.tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        found = found.to(self.model.device)
        states = self.model.text_model(input_ids=found["input_ids"], attention_mask=found["attention_mask"])
        return F.normalize(self.model.text_projection(states.pooler_output).float(), dim=-1)

    def _embed_images(self, images: Sequence[Image.Image]) -> Float[Tensor, "B D"]:
        pixels = self.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        states = self.model.vision_model(pixel_values=pixels.to(self.model.device, self.model.dtype))
        return F.normalize(self.model.visual_projection(states.pooler_output).float(), dim=-1)


@dataclass(eq=False, kw_only=True)
class ClipReward(ModelReward):
    """`path` is a folder or hub id of a transformers CLIPModel; `batch_size` inputs are embedded at a time."""

    name: ClassVar[str] = ""

    path: Any = None
    batch_size: Any = 32
    _clip: Clip = field(init=False)

    def __post_init__(self) -> None:
        check_non_empty(self.name, "path", self.path, "path of a CLIP model")
        check_int(self.name, "batch_size", self.batch_size)

    def prepare(self, policy: Policy) -> None:
        key = f"rewards.options.path of {self.name!r}"
        self._clip = Clip.open(self.path, device_of(policy), key=key, batch_size=self.batch_size)


@reward("clip_score", info=replace(CLIP, range="[-scale, scale]"))
@dataclass(eq=False, kw_only=True)
class ClipScore(ClipReward):
    """`scale` x cosine of CLIP's embeddings of the generated image and of the prompt (default scale 1).

    Radford et al. 2021 (arXiv 2103.00020). CoRL's pilot study uses it, and its code multiplies by 2; CLIPScore (Hessel
    et al. 2021, arXiv 2104.08718) by 2.5, with negative values at 0. `path` is a folder or hub id of a transformers
    CLIPModel. Prompts longer than its text encoder (77 tokens) are truncated. A row without a prompt gets None.
    """

    name: ClassVar[str] = "clip_score"

    scale: Any = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self.name, "scale", self.scale)

    def __call__(self, completions: list[Any], prompt: list[Any]) -> list[float | None]:
        """One score per completion, from its last image."""
        places, images = scorable_images(completions, [asked is not None for asked in prompt], self.name)
        if not places:
            return scatter_scores(len(completions), [], [])
        wanted = self._clip.texts([text_of_question(prompt[place]) for place in places])
        values = (self.scale * (self._clip.images(images) * wanted).sum(dim=-1)).tolist()
        return scatter_scores(len(completions), places, values)


@reward("clip_image_similarity", info=CLIP)
@dataclass(eq=False, kw_only=True)
class ClipImageSimilarity(ImagePairReward, ClipReward):
    """Cosine of CLIP's embeddings of a generated image and of another image, in [-1, 1]: UniRL-Zero's `clip_sim`.

    For edits that must preserve the rest of the image, and for images restored from an edit. `act`, `column` and `to`
    select the two images, as in `motet.rewards.image.pairwise`.
    """

    name: ClassVar[str] = "clip_image_similarity"

    def __post_init__(self) -> None:
        ImagePairReward.__post_init__(self)
        ClipReward.__post_init__(self)

    def __call__(self, completions: list[Any], **columns: Any) -> list[float | None]:
        """One score per completion."""
        places, pairs = self.pairs(completions, columns)
        if not places:
            return scatter_scores(len(completions), [], [])
        generated, others = (self._clip.images([pair[side] for pair in pairs]) for side in (0, 1))
        return scatter_scores(len(completions), places, (generated * others).sum(dim=-1).tolist())


@reward("clip_direction", info=CLIP)
@dataclass(eq=False, kw_only=True)
class ClipDirection(ImagePairReward, ClipReward):
    """Directional similarity of an edit: cos(E(edit) - E(source), E(target caption) - E(caption)).

    Gal et al. 2021 (StyleGAN-NADA, arXiv 2108.00946); UniRL-Zero's `sim_direction`, which it weights by 4 beside
    `clip_sim`. Embeddings have length 1 before they are subtracted. An image or a caption that does not move has no
    direction: 0 (one that moves by less than `MIN_DIRECTION` counts less). The columns `caption` and `target_caption`
    describe source and edit; a row without one gets None.
    """

    name: ClassVar[str] = "clip_direction"

    act: Any = "edit"

    def __post_init__(self) -> None:
        ImagePairReward.__post_init__(self)
        ClipReward.__post_init__(self)

    def __call__(
        self, completions: list[Any], caption: list[Any], target_caption: list[Any], **columns: Any
    ) -> list[float | None]:
        """One score per completion."""
        told = [a is not None and b is not None for a, b in zip(caption, target_caption, strict=True)]
        kept = [completion if one else [] for completion, one in zip(completions, told, strict=True)]
        places, pairs = self.pairs(kept, columns)
        if not places:
            return scatter_scores(len(completions), [], [])
        generated, sources = (self._clip.images([pair[side] for pair in pairs]) for side in (0, 1))
        before, after = (self._clip.texts([column[place] for place in places]) for column in (caption, target_caption))
        values = F.cosine_similarity(generated - sources, after - before, dim=-1, eps=MIN_DIRECTION)
        return scatter_scores(len(completions), places, values.tolist())
