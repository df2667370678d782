"""What the arithmetic has to know of a model: parameters by part, widths, and operations of the parts that are counted.

No weights: `motet.estimation.building` makes these from configs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

FLOAT32, BFLOAT16 = 4, 2
"""Bytes per element."""


def element_size(dtype: str) -> int:
    """Bytes per element of `float32` or `bfloat16`."""
    return BFLOAT16 if dtype == "bfloat16" else FLOAT32


@dataclass(frozen=True)
class PartSize:
    """A component: its `parameters` (adapters apart), the bytes of each while frozen, and whether they train.

    `adapters` counts the parameters of LoRA adapters in it, which train.
    """

    parameters: int
    stored: int = FLOAT32
    trains: bool = False
    adapters: int = 0

    @property
    def trainable(self) -> int:
        """Parameters with gradient and moments, in float32."""
        return self.adapters + (self.parameters if self.trains else 0)

    @property
    def sharded(self) -> bool:
        """Whether FSDP shards it: a part is, as a whole, once anything of it trains."""
        return self.trainable > 0

    @property
    def bytes(self) -> int:
        """Of the weights in memory."""
        return FLOAT32 * self.trainable + (0 if self.trains else self.stored * self.parameters)


@dataclass(frozen=True)
class LanguageSize:
    """A decoder and its heads. D `width`, H `heads`, K `kv_heads`, E `head_dim`, I `intermediate`, L `layers`.

    `text_head` and `image_head` are the parameters of the heads' products, `vocabulary` and `image_codes` how many
    logits they give; 0 where there is no image head. An image act has `image_actions` actions in `image_positions`
    positions (separators included), an image in a context `shown_tokens`. `vision_flops` are the operations of
    encoding one image, `decode_flops` those of decoding one, of `image_pixels`, which takes `decode_bytes` of memory.
    `trains`: its layers, or something below them, have gradients.
    """

    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    text_head: int
    image_codes: int = 0
    image_head: int = 0
    image_actions: int = 0
    image_positions: int = 0
    shown_tokens: int = 0
    vision_flops: float = 0.0
    decode_flops: float = 0.0
    image_pixels: int = 0
    decode_bytes: float = 0.0
    qk_norm: bool = False
    attention: str = "flash"
    trains: bool = True
    adapters: int = 0

    @property
    def layer_products(self) -> int:
        """Parameters of one layer's linear layers: D (H + 2 K) E of queries, keys and values, H E D, and 3 D I."""
        attention = (
            self.width * (self.heads + 2 * self.kv_heads) * self.head_dim + self.heads * self.head_dim * self.width
        )
        return attention + 3 * self.width * self.intermediate

    @property
    def products(self) -> int:
        """Parameters of the linear layers of all layers: a token's forward pass is 2 operations for each."""
        return self.layers * self.layer_products

    def head(self, kind: str) -> int:
        """Parameters of the head of a kind of act."""
        return self.image_head if kind == "image" else self.text_head

    def logits(self, kind: str) -> int:
        """Logits of an action of a kind."""
        return self.image_codes if kind == "image" else self.vocabulary


@dataclass(frozen=True)
class DenoiserSize:
    """A diffusion transformer, for one image of the recipe's size and one condition.

    `tokens` are the image's, `condition_tokens` the condition's. `flops` is one evaluation's forward pass. `saved` are
    the bytes per row that it keeps for the backward pass, `saved_per_block` those of one block, `casts` those of its
    weights in the compute type, once. `decode_flops` is the autoencoder's, per image.
    `conditioned_on`: positions of the language model that are computed for each condition (learned queries, or image
    tokens).
    """

    tokens: int
    condition_tokens: int
    flops: float
    saved: float
    saved_per_block: float
    casts: float
    decode_flops: float
    trains: bool
    conditioned_on: int = 0


@dataclass(frozen=True)
class ModelSize:
    """A policy's parts by name, and its two models where it has them.

    `units` are the parameters of the decoder layers or transformer blocks of a part, by its name: FSDP gathers one
    after the other, and the rest of what it shards, the root, for a whole forward and backward pass.
    """

    family: str
    parts: Mapping[str, PartSize]
    language: LanguageSize | None
    denoiser: DenoiserSize | None
    units: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, "tuple[int, ...]"])
    notes: tuple[str, ...] = field(default=())

    @property
    def parameters(self) -> int:
        """All of them, adapters included."""
        return sum(part.parameters + part.adapters for part in self.parts.values())

    @property
    def trainable(self) -> int:
        """Those with gradient and moments."""
        return sum(part.trainable for part in self.parts.values())

    @property
    def sharded_bytes(self) -> int:
        """Weights that FSDP shards."""
        return sum(part.bytes for part in self.parts.values() if part.sharded)

    @property
    def unit_bytes(self) -> int:
        """The largest unit of what is sharded."""
        of_parts = [
            max(self.units[name], default=0) * (FLOAT32 if part.trains else part.stored)
            for name, part in self.parts.items()
            if part.sharded and name in self.units
        ]
        return max(of_parts, default=0)

    @property
    def root_bytes(self) -> int:
        """What is sharded and in no unit."""
        in_units = sum(
            sum(self.units[name]) * (FLOAT32 if part.trains else part.stored)
            for name, part in self.parts.items()
            if part.sharded and name in self.units
        )
        return max(0, self.sharded_bytes - in_units)

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of act that it performs."""
        found = {"text"} if self.language is not None else set[str]()
        if self.language is not None and self.language.image_actions:
            found.add("image")
        return frozenset(found | ({"denoising"} if self.denoiser is not None else set()))
