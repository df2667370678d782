"""FLUX.2: `Flux2Transformer2DModel`, dev and klein; both edit any number of source images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from motet.policies.diffusion.models.base import Condition
from motet.policies.diffusion.models.common import DiffusersDenoiser
from motet.policies.diffusion.models.conditions import stack_embeddings
from motet.policies.diffusion.models.packing import batch_sources, pack, position_grid, unpack

SOURCE_DISTANCE = 10
"""Sources stand at 10, 20, ... on the first axis of positions, the generated image at 0."""


class Flux2Denoiser(DiffusersDenoiser):
    """FLUX.2: latents `[128, H / 16, W / 16]`, patched and whitened by the autoencoder's running statistics.

    Every row attends to its own sources alone. Masked embeddings are left out, and leave no gap in the positions.
    """

    transformer_class = "Flux2Transformer2DModel"
    can_edit = True
    default_guidance = 4.0

    @property
    def latent_channels(self) -> int:
        """C of a latent: one token; RGB pixels where there is no autoencoder."""
        return int(self.config.in_channels) // self.patch**2

    @property
    def patch(self) -> int:
        """1: latents are patched already; without an autoencoder the side of a token in pixels."""
        return 1 if self.vae is not None else max(1, math.isqrt(int(self.config.in_channels) // 3))

    @property
    def compression(self) -> int:
        """Side of the square of pixels that is one latent cell: 2 x 2 cells of the autoencoder."""
        return 1 if self.vae is None else 2 ** len(self.vae.config.block_out_channels)

    def _forward(self, x: Tensor, sigma: Tensor, conditions: Sequence[Condition]) -> Tensor:
        images = [x, *batch_sources(conditions)]
        embeddings = stack_embeddings(conditions)
        side = self.patch
        places = [
            position_grid(image.shape[-2] // side, image.shape[-1] // side, first=n * SOURCE_DISTANCE)
            for n, image in enumerate(images)
        ]
        of_text = torch.zeros(embeddings.shape[1], 4)
        of_text[:, 3] = torch.arange(embeddings.shape[1])  # the fourth axis counts text tokens
        image_ids = torch.nn.functional.pad(torch.cat(places), (0, 1))
        out = self.transformer(
            hidden_states=torch.cat([pack(image, side) for image in images], dim=1),
            timestep=self._timestep(sigma) / 1000,  # the class multiplies by 1000 itself
            guidance=self._guidance_of(sigma),
            encoder_hidden_states=embeddings,
            txt_ids=of_text.to(x.device),
            img_ids=image_ids.to(x.device),
            return_dict=False,
        )[0]
        return unpack(out, x.shape, side)

    def _mu(self, num_steps: int, num_tokens: int) -> float:
        """The pipeline's `compute_empirical_mu`: two lines fitted for 10 and 200 steps, and between them by steps."""
        at_200 = 0.00016927 * num_tokens + 0.45666666
        if num_tokens > 4300:
            return at_200
        at_10 = 8.73809524e-05 * num_tokens + 1.89833333
        return at_10 + (at_200 - at_10) / 190 * (num_steps - 10)

    def _to_latents(self, pixels: Tensor) -> Tensor:
        mean, std = self._statistics()
        return (pixel_unshuffle(self.vae.encode(pixels).latent_dist.mode(), 2) - mean) / std

    def _to_pixels(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics()
        return self.vae.decode(pixel_shuffle(latents * std + mean, 2), return_dict=False)[0]

    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the autoencoder's patched latents, `[1, C, 1, 1]`."""
        norm = self.vae.bn
        return norm.running_mean.view(1, -1, 1, 1), (norm.running_var + self.vae.config.batch_norm_eps).sqrt().view(
            1, -1, 1, 1
        )
