"""The unified policy: a language model that writes, and conditions a diffusion transformer that draws."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from motet.core.trajectory import Act, ImageTokens
from motet.policies.composite import CompositePolicy
from motet.policies.diffusion import DiffusionGenerator
from motet.policies.diffusion.models import Denoiser
from motet.policies.diffusion.policy import DiffusionPolicy
from motet.policies.unified.checkpoint import save_unified
from motet.policies.unified.conditioner import QueryConditioner
from motet.policies.unified.connector import QueryConnector
from motet.policies.unified.tokens import TokenConditioner


class UnifiedPolicy(CompositePolicy):
    """A language model and a diffusion transformer in one. `height` and `width` are those of its pictures, in pixels.

    `reader` is a `VlmPolicy` whose reading of learned queries conditions drawings (UniRL-Zero, arXiv 2510.17937), or a
    `JanusPolicy`, of whose image tokens the diffusion transformer is the decoder (BLIP3o-NEXT): the bridge says which.
    The gradient of drawings reaches the language model, where it trains. A drawing whose context shows a picture is an
    edit of the last one for the former, which sees it, and whose denoiser has its latent; see `TokenConditioner` for
    the latter.
    """

    def __init__(
        self,
        reader: Any,
        bridge: QueryConnector,
        denoiser: Denoiser,
        *,
        height: int,
        width: int,
        autocast: torch.dtype | None = None,
        rollout_batch: int | None = None,
    ) -> None:
        self.reader, self.bridge, self.denoiser, self.size = reader, bridge, denoiser, (height, width)
        bridge.requires_grad_(False)  # as the experts are, until parts are chosen
        reads_tokens = bridge.connector.config.reads == "tokens"
        conditioner = (TokenConditioner if reads_tokens else QueryConditioner)(reader, bridge, denoiser, self.size)
        painter = DiffusionGenerator(denoiser, conditioner, height, width, autocast)
        parts = {**bridge.parts, **denoiser.parts}
        drawer = DiffusionPolicy(painter, parts, rollout_batch=rollout_batch)
        super().__init__({**dict.fromkeys(reader.kinds, reader), "denoising": drawer})

    def paint(self, acts: Sequence[ImageTokens], n: int = 1, *, seed: int = 0, **sampling: Any) -> list[Act]:
        """Paint what `draw` drew with image tokens anew, `n` pictures of each; keywords as in `Sampling`.

        The ODE is walked unless a `temperature` other than 0 asks for its stochastic steps.
        """
        contexts = [act.context + act.to_conversation() for act in acts]
        return self._ask("denoising", contexts, n, seed, sampling)

    def save(self, folder: Path) -> None:
        """Both experts in the layouts of transformers and diffusers, the bridge as safetensors between them."""
        save_unified(Path(folder), self.reader, self.bridge, self.denoiser, self.size)
