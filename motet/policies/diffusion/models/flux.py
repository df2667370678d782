"""FLUX.1: `FluxTransformer2DModel`, from text (dev, schnell) or editing a source (Kontext, arXiv 2506.15742)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from motet.policies.diffusion.models.base import Condition
from motet.policies.diffusion.models.common import DiffusersDenoiser
from motet.policies.diffusion.models.conditions import stack_embeddings, stack_pooled
from motet.policies.diffusion.models.packing import batch_sources, pack, position_grid, unpack


class FluxDenoiser(DiffusersDenoiser):
    """FLUX.1: latents `[16, H / 8, W / 8]` in patches of 2 x 2, conditions with a pooled vector.

    Source latents are tokens after those of the generated image, with 1, 2, ... as their first position. Text tokens
    have no positions and no mask, so masked embeddings are left out.
    """

    transformer_class = "FluxTransformer2DModel"
    can_edit = True

    @property
    def latent_channels(self) -> int:
        """C of a latent: a token is 2 x 2 cells."""
        return int(self.config.in_channels) // 4

    @property
    def patch(self) -> int:
        """2: the pipeline packs, whatever the config's patch_size says."""
        return 2

    @property
    def pooled_width(self) -> int:
        """E of the pooled vector."""
        return int(self.config.pooled_projection_dim)

    def _forward(self, x: Tensor, sigma: Tensor, conditions: Sequence[Condition]) -> Tensor:
        images = [x, *batch_sources(conditions)]
        positions = [position_grid(p.shape[-2] // 2, p.shape[-1] // 2, first=n) for n, p in enumerate(images)]
        embeddings = stack_embeddings(conditions)
        out = self.transformer(
            hidden_states=torch.cat([pack(image) for image in images], dim=1),
            timestep=self._timestep(sigma) / 1000,  # the class multiplies by 1000 itself
            guidance=self._guidance_of(sigma),
            pooled_projections=stack_pooled(conditions),
            encoder_hidden_states=embeddings,
            txt_ids=torch.zeros(embeddings.shape[1], 3, device=x.device),
            img_ids=torch.cat(positions).to(x.device),
            return_dict=False,
        )[0]
        return unpack(out, x.shape)
