"""Stable Diffusion 3 and 3.5: `SD3Transformer2DModel` (arXiv 2403.03206)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from torch import Tensor, nn

from motet.core.errors import ConfigError
from motet.policies.diffusion.models.base import Condition
from motet.policies.diffusion.models.conditions import stack_embeddings, stack_pooled
from motet.policies.diffusion.models.source_adapter import DenoiserWithSourceAdapter


class Sd3Denoiser(DenoiserWithSourceAdapter):
    """SD3: latents `[16, H / 8, W / 8]`, conditions with a pooled vector.

    Its text tokens have no positions and its attention no mask, so masked embeddings are left out.
    """

    transformer_class = "SD3Transformer2DModel"
    linear_grid = False

    @property
    def patch_embed(self) -> nn.Module:
        """What makes patch tokens of a latent."""
        return self.transformer.pos_embed

    @property
    def pooled_width(self) -> int:
        """E of the pooled vector."""
        return int(self.config.pooled_projection_dim)

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """`(C, H, W)`. Raises ConfigError for sizes that do not fit, or beyond the trained positions."""
        shape = super().latent_shape(height, width)
        most = self.config.pos_embed_max_size * self.multiple
        if max(height, width) > most:
            raise ConfigError(
                f"height={height}, width={width}: this SD3Transformer2DModel has positions for {most} x {most} pixels.",
                fix=f"use at most {most} pixels.",
            )
        return shape

    def _batch_key(self, condition: Condition) -> Hashable:
        return condition.embeddings.shape  # rows without a source add nothing

    def _forward(self, x: Tensor, sigma: Tensor, conditions: Sequence[Condition]) -> Tensor:
        with self._adding_sources(x, conditions):
            return self.transformer(
                hidden_states=x,
                timestep=self._timestep(sigma),
                encoder_hidden_states=stack_embeddings(conditions),
                pooled_projections=stack_pooled(conditions),
                return_dict=False,
            )[0]
