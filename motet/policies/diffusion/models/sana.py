"""SANA: `SanaTransformer2DModel` (arXiv 2410.10629)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from torch import Tensor, nn

from motet.core.errors import CheckpointError
from motet.policies.diffusion.models.base import Condition
from motet.policies.diffusion.models.conditions import pad_embeddings
from motet.policies.diffusion.models.source_adapter import DenoiserWithSourceAdapter


class SanaDenoiser(DenoiserWithSourceAdapter):
    """SANA: latents `[32, H / 32, W / 32]` of an AutoencoderDC; padding of conditions is masked in cross-attention."""

    transformer_class = "SanaTransformer2DModel"
    linear_grid = False
    masks = True

    def __init__(self, transformer: Any, vae: Any, scheduler: Any, **options: Any) -> None:
        if transformer.config.get("guidance_embeds", False):
            raise CheckpointError(
                "This SanaTransformer2DModel is SANA-Sprint (guidance_embeds), a consistency model without velocities.",
                fix="use a SANA or SANA-1.5 checkpoint.",
            )
        super().__init__(transformer, vae, scheduler, **options)

    @property
    def patch_embed(self) -> nn.Module:
        """What makes patch tokens of a latent."""
        return self.transformer.patch_embed

    @property
    def condition_width(self) -> int:
        """D of a condition's embeddings."""
        return int(self.config.caption_channels)

    @property
    def compression(self) -> int:
        """Side of the square of pixels that is one latent cell."""
        return 1 if self.vae is None else 2 ** (len(self.vae.config.encoder_block_out_channels) - 1)

    def _batch_key(self, condition: Condition) -> Hashable:
        return None  # lengths are padded and masked, and rows without a source add nothing

    def _forward(self, x: Tensor, sigma: Tensor, conditions: Sequence[Condition]) -> Tensor:
        embeddings, mask = pad_embeddings(conditions)
        with self._adding_sources(x, conditions):
            out = self.transformer(
                x,
                encoder_hidden_states=embeddings,
                encoder_attention_mask=mask,
                timestep=self._timestep(sigma) * self.config.timestep_scale,
                return_dict=False,
            )[0]
        return out.chunk(2, dim=1)[0] if self.config.out_channels == 2 * self.config.in_channels else out

    def _to_latents(self, pixels: Tensor) -> Tensor:
        return self.vae.encode(pixels).latent * self.vae.config.scaling_factor

    def _to_pixels(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
