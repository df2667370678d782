"""Source pictures for transformers that were trained without: as in BLIP3o and UniRL-Zero (arXiv 2510.17937)."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
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
from motet.shards import save_tensors

ADAPTER_FILE = "source_adapter.safetensors"


class SourceAdapter(nn.Module):
    """What a source latent adds to the patch tokens: a copy of the patch embedding, then a linear layer from zero,
    both float32.

    At its start it adds nothing, so the text-to-picture model is unchanged.
    """

    def __init__(self, patch_embed: nn.Module, width: int) -> None:
        super().__init__()
        self.embed: Any = copy.deepcopy(patch_embed).float()
        if self.embed.pos_embed_max_size:  # SD3's positions are stored, and the tokens that it adds to have them
            self.embed.pos_embed = None
        self.project = nn.Linear(width, width).to(next(patch_embed.parameters()).device)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, sources: Tensor) -> Tensor:
        """`[B, C, H, W]` latents -> `[B, T, D]`."""
        return self.project(self.embed(sources))


class AdaptedDenoiser(DiffusersDenoiser):
    """A class that edits nothing as it was made, and with `source_adapter` does: one source of the latent's own shape,
    added to the patch tokens.
    """

    can_edit = True
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
        del edits  # the adapter decides
        super().__init__(transformer, vae, scheduler, edits=source_adapter, embedded_guidance=embedded_guidance)
        self.source_adapter: SourceAdapter | None = None
        if source_adapter:
            width = self.config.num_attention_heads * self.config.attention_head_dim
            self.source_adapter = SourceAdapter(self.patch_embed, width).requires_grad_(False)

    @property
    def patch_embed(self) -> nn.Module:
        """What makes patch tokens of a latent."""
        raise NotImplementedError

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

    @contextmanager
    def _sources_added(self, x: Tensor, conditions: Sequence[Condition]) -> Iterator[None]:
        """Inside, the patch embedding of row b also holds what row b's own source adds."""
        rows = [row for row, condition in enumerate(conditions) if condition.sources]
        adapter = self.source_adapter
        if not rows or adapter is None:
            yield
            return
        own = tuple(x.shape[1:])
        for row in rows:
            shapes = [tuple(source.shape) for source in conditions[row].sources]
            if shapes != [own]:
                raise ConfigError(
                    f"The source adapter takes one source of the latent's own shape {own}, not {shapes}.",
                    fix="show one picture, encoded at the drawing's height and width.",
                )
        weight = adapter.project.weight
        added = adapter(torch.stack([conditions[row].sources[0] for row in rows]).to(weight))

        def add(_module: nn.Module, _inputs: Any, tokens: Tensor) -> Tensor:
            whole = torch.zeros_like(tokens).index_add(0, torch.tensor(rows, device=tokens.device), added.to(tokens))
            return tokens + whole

        handle = self.patch_embed.register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()
