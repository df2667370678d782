"""Qwen-Image: `QwenImageTransformer2DModel` (arXiv 2508.02324), from text or editing source images."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from motet.core.errors import CheckpointError
from motet.policies.diffusion.models.base import Condition
from motet.policies.diffusion.models.common import DiffusersDenoiser
from motet.policies.diffusion.models.conditions import pad_embeddings
from motet.policies.diffusion.models.packing import batch_sources, pack, unpack


class QwenImageDenoiser(DiffusersDenoiser):
    """Qwen-Image: latents `[16, H / 8, W / 8]` in patches of 2 x 2; padding of conditions is masked.

    Source latents are tokens after those of the generated image. Its pipelines scale a guided velocity back to the
    length of the conditional one, token by token: `rescale`.
    """

    transformer_class = "QwenImageTransformer2DModel"
    can_edit = True
    masks = True

    def __init__(
        self, transformer: Any, vae: Any, scheduler: Any, *, edits: bool = False, embedded_guidance: float | None = None
    ) -> None:
        for option in ("guidance_embeds", "use_layer3d_rope", "use_additional_t_cond"):
            if transformer.config.get(option, False):
                raise CheckpointError(
                    f"This QwenImageTransformer2DModel has {option}, which motet's denoiser does not know.",
                    fix="use Qwen-Image, Qwen-Image-2512 or a Qwen-Image-Edit checkpoint.",
                )
        super().__init__(transformer, vae, scheduler, edits=edits, embedded_guidance=embedded_guidance)
        self.rescale = rescale

    @property
    def latent_channels(self) -> int:
        """C of a latent: a token is 2 x 2 cells."""
        return int(self.config.in_channels) // 4

    @property
    def patch(self) -> int:
        """2: the pipeline packs."""
        return 2

    @property
    def compression(self) -> int:
        """Side of the square of pixels that is one latent cell."""
        return 1 if self.vae is None else 2 ** len(self.vae.config.temperal_downsample)

    def _batch_key(self, condition: Condition) -> Hashable:
        return tuple(source.shape for source in condition.sources)  # lengths of texts are padded and masked

    def _forward(self, x: Tensor, sigma: Tensor, conditions: Sequence[Condition]) -> Tensor:
        images = [x, *batch_sources(conditions)]
        embeddings, mask = pad_embeddings(conditions)
        lengths = {len(condition.embeddings) if condition.mask is None else -1 for condition in conditions}
        unmasked = (len(lengths) == 1 and -1 not in lengths) or bool(mask.all())  # the former without a sync
        shapes = [(1, image.shape[-2] // 2, image.shape[-1] // 2) for image in images]
        out = self.transformer(
            hidden_states=torch.cat([pack(image) for image in images], dim=1),
            timestep=self._timestep(sigma) / 1000,  # the class multiplies by 1000 itself
            encoder_hidden_states=embeddings,
            encoder_hidden_states_mask=None if unmasked else mask,
            img_shapes=[shapes] * len(x),
            return_dict=False,
        )[0]
        return unpack(out, x.shape)

    def _to_latents(self, pixels: Tensor) -> Tensor:
        mean, std = self._statistics(pixels)
        return (self.vae.encode(pixels.unsqueeze(2)).latent_dist.mode()[:, :, 0] - mean) / std

    def _to_pixels(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        return self.vae.decode((latents * std + mean).unsqueeze(2), return_dict=False)[0][:, :, 0]

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the video autoencoder's latents; an image is its first frame."""
        mean, std = self.vae.config.latents_mean, self.vae.config.latents_std
        return like.new_tensor(mean).view(1, -1, 1, 1), like.new_tensor(std).view(1, -1, 1, 1)


def rescale(guided: Tensor, conditional: Tensor) -> Tensor:
    """Every token of a guided velocity `[B, C, H, W]` with the length that it has in the conditional one."""
    tokens, wanted = pack(guided), pack(conditional)
    lengths = wanted.norm(dim=-1, keepdim=True) / tokens.norm(dim=-1, keepdim=True)
    return unpack(tokens * lengths, guided.shape)
