"""SANA: `SanaTransformer2DModel` (arXiv 2410.10629), and its edits as in BLIP3o and UniRL-Zero."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from motet.errors import CheckpointError, ConfigError
from motet.lookup import first_line
from motet.policies.denoisers.base import Condition
from motet.policies.denoisers.common import DiffusersDenoiser
from motet.policies.denoisers.conditions import padded
from motet.shards import save_tensors

ADAPTER_FILE = "source_adapter.safetensors"


class SourceAdapter(nn.Module):
    """What a source latent adds to the patch tokens: a copy of the patch embedding, then a linear layer from zero,
    both float32.

    At its start it adds nothing, so the text-to-picture model is unchanged (UniRL-Zero, arXiv 2510.17937).
    """

    def __init__(self, patch_embed: nn.Module, width: int) -> None:
        super().__init__()
        self.embed = copy.deepcopy(patch_embed).float()
        self.project = nn.Linear(width, width).to(next(patch_embed.parameters()).device)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, sources: Tensor) -> Tensor:
        """`[B, C, H, W]` latents -> `[B, T, D]`."""
        return self.project(self.embed(sources))


class SanaDenoiser(DiffusersDenoiser):
    """SANA: latents `[32, H / 32, W / 32]` of an AutoencoderDC; padding of conditions is masked in cross-attention.

    With `source_adapter` it edits: one source of the latent's own shape, added to the patch tokens.
    """

    transformer_class = "SanaTransformer2DModel"
    linear_grid = False
    can_edit = True
    masks = True
    sources_may_differ = False

    def __init__(
        self,
        transformer: Any,
        vae: Any,
        scheduler: Any,
        *,
        edits: bool = False,
        embedded_guidance: float | None = None,
        source_adapter: bool = False,
    ) -> None:
        del edits  # as it was made it edits nothing; the adapter decides
        if transformer.config.get("guidance_embeds", False):
            raise CheckpointError(
                "This SanaTransformer2DModel is SANA-Sprint (guidance_embeds), a consistency model without velocities.",
                fix="use a SANA or SANA-1.5 checkpoint.",
            )
        super().__init__(transformer, vae, scheduler, edits=source_adapter, embedded_guidance=embedded_guidance)
        self.source_adapter: SourceAdapter | None = None
        if source_adapter:
            width = self.config.num_attention_heads * self.config.attention_head_dim
            self.source_adapter = SourceAdapter(transformer.patch_embed, width).requires_grad_(False)

    @property
    def condition_width(self) -> int:
        """D of a condition's embeddings."""
        return int(self.config.caption_channels)

    @property
    def compression(self) -> int:
        """Side of the square of pixels that is one latent cell."""
        return 1 if self.vae is None else 2 ** (len(self.vae.config.encoder_block_out_channels) - 1)

    @property
    def parts(self) -> dict[str, nn.Module]:
        """`transformer`, and `source_adapter` where there is one."""
        found: dict[str, nn.Module] = super().parts
        return found if self.source_adapter is None else {**found, "source_adapter": self.source_adapter}

    def load_adapter(self, folder: Path) -> None:
        """Read the adapter's weights beside a saved transformer. Raises CheckpointError when they do not fit."""
        assert self.source_adapter is not None
        try:
            self.source_adapter.load_state_dict(load_file(str(Path(folder) / ADAPTER_FILE)))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise CheckpointError(
                f"{str(Path(folder) / ADAPTER_FILE)!r} cannot be loaded: {first_line(error)}",
                fix="use the file that was saved with this transformer.",
            ) from error

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter, in a file of its own."""
        if self.source_adapter is not None:
            state = {
                name: value.detach().cpu().contiguous() for name, value in self.source_adapter.state_dict().items()
            }
            save_tensors(Path(folder) / ADAPTER_FILE, state)

    def _alike(self, condition: Condition) -> Hashable:
        return None  # lengths are padded and masked, and rows without a source add nothing

    def _forward(self, x: Tensor, sigma: Tensor, conditions: Sequence[Condition]) -> Tensor:
        embeddings, mask = padded(conditions)
        with self._sources_added(x, conditions):
            out = self.transformer(
                x,
                encoder_hidden_states=embeddings,
                encoder_attention_mask=mask,
                timestep=self._timestep(sigma) * self.config.timestep_scale,
                return_dict=False,
            )[0]
        return out.chunk(2, dim=1)[0] if self.config.out_channels == 2 * self.config.in_channels else out

    @contextmanager
    def _sources_added(self, x: Tensor, conditions: Sequence[Condition]) -> Iterator[None]:
        """Inside, the patch embedding of row b also holds what row b's own source adds."""
        rows = [row for row, condition in enumerate(conditions) if condition.sources]
        adapter = self.source_adapter
        if not rows or adapter is None:
            yield
            return
        for row in rows:
            shapes = [tuple(source.shape) for source in conditions[row].sources]
            if shapes != [tuple(x.shape[1:])]:
                raise ConfigError(
                    f"SANA's adapter takes one source of the latent's own shape {tuple(x.shape[1:])}, not {shapes}.",
                    fix="show one picture, encoded at the drawing's height and width.",
                )
        weight = adapter.project.weight
        added = adapter(torch.stack([conditions[row].sources[0] for row in rows]).to(weight))

        def add(_module: nn.Module, _inputs: Any, tokens: Tensor) -> Tensor:
            whole = torch.zeros_like(tokens).index_add(0, torch.tensor(rows, device=tokens.device), added.to(tokens))
            return tokens + whole

        handle = self.transformer.patch_embed.register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()

    def _to_latents(self, pixels: Tensor) -> Tensor:
        return self.vae.encode(pixels).latent * self.vae.config.scaling_factor

    def _to_pixels(self, latents: Tensor) -> Tensor:
        return self.vae.decode(latents / self.vae.config.scaling_factor, return_dict=False)[0]
