"""Source images for transformers that were trained without: the source branch of UniRL-Zero (arXiv 2510.17937)."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from motet.core.errors import CheckpointError, ConfigError
from motet.core.registry import first_line
from motet.numerics.transfers import index_on
from motet.policies.diffusion.models.base import Condition
from motet.policies.diffusion.models.common import DiffusersDenoiser
from motet.weights.safetensors_io import save_tensors

ADAPTER_FILE = "source_adapter.safetensors"
SOURCE_NOISE = 0.2
"""Share of noise in UniRL-Zero's sources: it shows 0.8 x + 0.2 noise."""
_TRAINED_AS = "trained_as"
"""Key of the adapter file's metadata that names the convention."""


class SourceAdapter(nn.Module):
    """What a source latent adds to the patch tokens: a copy of the patch embedding, then a linear layer from zero,
    both float32.

    At its start it adds nothing, so the text-to-image model is unchanged. Trained, it adds nothing where there is no
    source, and sees sources as they are. With `unirl_zero` it does as the code of that name, for weights that were
    trained there: where there is no source it adds what a latent of zeros gives, and noise is mixed into sources. The
    adapter's file says which of both it is (`trained_as` in its metadata).
    """

    unirl_zero = False

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

    def shown(self, source: Tensor) -> Tensor:
        """What it sees of a source latent `[C, H, W]`: for `unirl_zero` 0.8 of it and 0.2 of standard normal noise.

        The noise is a function of the latent: all branches, steps, rollouts of the group and replays see one source.
        UniRL-Zero's own code samples it once per group.
        """
        if not self.unirl_zero:
            return source
        digest = hashlib.sha256(source.detach().float().cpu().numpy().tobytes()).digest()
        seed = int.from_bytes(digest[:7], "big")
        noise = torch.randn(source.shape, generator=torch.Generator().manual_seed(seed))
        return (1 - SOURCE_NOISE) * source + SOURCE_NOISE * noise.to(source)


class DenoiserWithSourceAdapter(DiffusersDenoiser):
    """A text-to-image denoiser that edits if it has a `source_adapter`: one source of the latent's own shape is added
    to the patch tokens.
    """

    can_edit = True
    any_source_size = False

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
        file = str(Path(folder) / ADAPTER_FILE)
        try:
            self.source_adapter.load_state_dict(load_file(file))
            with safe_open(file, framework="pt") as opened:
                convention = (opened.metadata() or {}).get(_TRAINED_AS, "motet")
        except (OSError, SafetensorError, RuntimeError) as error:
            raise CheckpointError(
                f"{str(Path(folder) / ADAPTER_FILE)!r} cannot be loaded: {first_line(error)}",
                fix="use the file that was saved with this transformer.",
            ) from error
        if convention not in ("motet", "unirl_zero"):
            raise CheckpointError(
                f"{file!r} names trained_as={convention!r} in its metadata.", fix="write motet or unirl_zero there."
            )
        self.source_adapter.unirl_zero = convention == "unirl_zero"

    def save_adapter(self, folder: Path) -> None:
        """Write the adapter, in a file of its own."""
        if self.source_adapter is not None:
            state = {
                name: value.detach().cpu().contiguous() for name, value in self.source_adapter.state_dict().items()
            }
            convention = "unirl_zero" if self.source_adapter.unirl_zero else "motet"
            save_tensors(Path(folder) / ADAPTER_FILE, state, {_TRAINED_AS: convention})

    @contextmanager
    def _adding_sources(self, x: Tensor, conditions: Sequence[Condition]) -> Iterator[None]:
        """Inside, the patch embedding of row b also holds what row b's own source adds."""
        adapter = self.source_adapter
        _check_source_shape(x, conditions)
        rows = [row for row, c in enumerate(conditions) if c.sources or (adapter is not None and adapter.unirl_zero)]
        if not rows or adapter is None:
            yield
            return
        sources = [conditions[row].sources[0] if conditions[row].sources else torch.zeros_like(x[row]) for row in rows]
        weight = adapter.project.weight
        added = adapter(torch.stack([source.to(weight) for source in sources]))
        places = index_on(weight.device, rows)

        def add(_module: nn.Module, _inputs: Any, tokens: Tensor) -> Tensor:
            whole = torch.zeros_like(tokens).index_add(0, places, added.to(tokens))
            return tokens + whole

        handle = self.patch_embed.register_forward_hook(add)
        try:
            yield
        finally:
            handle.remove()


def encode_source(denoiser: Any, image: Image.Image, height: int, width: int) -> Tensor:
    """The latent of an image as the denoiser gets it to edit that image."""
    latent = denoiser.encode([image], height, width)[0]
    adapter = getattr(denoiser, "source_adapter", None)
    return latent if adapter is None else adapter.shown(latent)


def _check_source_shape(x: Tensor, conditions: Sequence[Condition]) -> None:
    own = tuple(x.shape[1:])
    for condition in conditions:
        shapes = [tuple(source.shape) for source in condition.sources]
        if shapes and shapes != [own]:
            raise ConfigError(
                f"The source adapter takes one source of the latent's own shape {own}, not {shapes}.",
                fix="give one image, encoded at the generated image's height and width.",
            )
