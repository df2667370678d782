"""What a policy asks of a diffusion transformer, whatever its class."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Condition:
    """The condition of one latent: embeddings of the prompt, and latents of the images to edit.

    `mask` says which embeddings count, None: all. `pooled` is the one vector per prompt that some classes take beside
    them (SD3, FLUX).
    """

    embeddings: Float[Tensor, "L D"]
    mask: Bool[Tensor, "L"] | None = None
    pooled: Float[Tensor, "E"] | None = None
    sources: tuple[Float[Tensor, "..."], ...] = ()


@runtime_checkable
class Denoiser(Protocol):
    """A transformer with its schedule and the autoencoder of its latents. Velocities are `noise - image`."""

    transformer: nn.Module
    """What trains."""
    vae: nn.Module | None
    """Images <-> latents, frozen; None: latents are pixels in [-1, 1]."""
    edits: bool
    """Whether conditions may hold sources."""
    rescale: Callable[[Float[Tensor, "B *D"], Float[Tensor, "B *D"]], Float[Tensor, "B *D"]] | None
    """What the class does to a guided velocity, given the conditional one; None: nothing. For
    `GuidanceBranches.rescale`.
    """

    @property
    def parts(self) -> Mapping[str, nn.Module]:
        """What may train, by name: `transformer`, and `source_adapter` where there is one."""
        ...

    @property
    def condition_width(self) -> int:
        """D of a condition's embeddings."""
        ...

    @property
    def pooled_width(self) -> int | None:
        """E of a condition's pooled vector; None where the class takes none."""
        ...

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Shape of the latent of an image of this many pixels. Raises ConfigError for a size that does not fit."""
        ...

    def schedule(self, num_steps: int, shape: Sequence[int], shift: float | None = None) -> Float[Tensor, "S1"]:
        """Sigmas from 1 to 0 for a latent of a shape, by the checkpoint's scheduler; `shift` replaces its own.

        float32, on the CPU.
        """
        ...

    def velocity(
        self, x: Float[Tensor, "B *D"], sigma: Float[Tensor, "B"], conditions: Sequence[Condition]
    ) -> Float[Tensor, "B *D"]:
        """The velocity at each latent under its condition; lengths of embeddings and numbers of sources may differ."""
        ...

    def encode(self, images: Sequence[Image.Image], height: int, width: int) -> Float[Tensor, "B *D"]:
        """Images as latents, scaled as the transformer expects them; deterministic (the posterior's mode)."""
        ...

    def decode(self, latents: Float[Tensor, "B *D"]) -> list[Image.Image]:
        """Latents as RGB images: decoded once to uint8."""
        ...

    def tokens(self, shape: Sequence[int]) -> int:
        """Transformer tokens of a latent of this shape: what a velocity costs."""
        ...

    def save(self, folder: Any) -> None:
        """Transformer, autoencoder and scheduler in subfolders that diffusers loads."""
        ...
