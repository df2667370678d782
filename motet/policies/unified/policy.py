"""The unified policy: a language model, and a diffusion transformer that its hidden states condition."""

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
from motet.policies.generation.policy import LanguageModelPolicy
from motet.policies.unified.checkpoint import save_unified
from motet.policies.unified.conditioner import QueryConditioner
from motet.policies.unified.connector import QueryConnector
from motet.policies.unified.tokens import TokenConditioner


class UnifiedPolicy(CompositePolicy):
    """A language model and a diffusion transformer. `height` and `width` are those of generated images, in pixels.

    `text_policy` is a `VlmPolicy`, whose hidden states at learned queries condition the denoiser (UniRL-Zero, arXiv
    2510.17937), or a `JanusPolicy`, of whose image tokens the diffusion transformer is the decoder (BLIP3o-NEXT); the
    connector says which. The gradient of denoising acts reaches the language model, where it trains. For the former a
    context with images asks for an edit of the last one; see `TokenConditioner` for the latter.
    """

    def __init__(
        self,
        text_policy: LanguageModelPolicy,
        connector: QueryConnector,
        denoiser: Denoiser,
        *,
        height: int,
        width: int,
        autocast: torch.dtype | None = None,
        rollout_batch: int | None = None,
    ) -> None:
        self.connector, self.denoiser, self.size = connector, denoiser, (height, width)
        connector.requires_grad_(False)  # until parts are chosen, as in both models
        reads_tokens = connector.config.reads == "tokens"
        conditioner = (TokenConditioner if reads_tokens else QueryConditioner)(
            text_policy, connector, denoiser, self.size
        )
        generator = DiffusionGenerator(denoiser, conditioner, height, width, autocast)
        parts = {**connector.parts, **denoiser.parts}
        image_policy = DiffusionPolicy(generator, parts, rollout_batch=rollout_batch)
        super().__init__(text_policy, image_policy)

    def decode_with_flow(self, acts: Sequence[ImageTokens], n: int = 1, *, seed: int = 0, **sampling: Any) -> list[Act]:
        """Decode generated image tokens with flow, `n` images of each act; keywords as in `Sampling`.

        Follows the ODE unless a `temperature` other than 0 asks for stochastic steps.
        """
        contexts = [act.context + act.to_conversation() for act in acts]
        return self._sample("denoising", contexts, n, seed, sampling)

    def save(self, folder: Path) -> None:
        """Both models in the layouts of transformers and diffusers, the connector as safetensors beside them."""
        save_unified(Path(folder), self.text_policy, self.connector, self.denoiser, self.size)
