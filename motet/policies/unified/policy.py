"""The unified policy: a vision-language model that writes, and conditions a diffusion transformer that draws."""

from __future__ import annotations

from pathlib import Path

import torch

from motet.config import LoraConfig
from motet.policies.denoisers import Denoiser
from motet.policies.ensemble import Ensemble
from motet.policies.flow import Painter
from motet.policies.flow.policy import PaintingPolicy
from motet.policies.unified.checkpoint import save_unified
from motet.policies.unified.connector import Bridge
from motet.policies.unified.drawing import QueryConditioner
from motet.policies.vlm import VlmPolicy


class UnifiedPolicy(Ensemble):
    """A language model and a diffusion transformer in one (UniRL-Zero, arXiv 2510.17937).

    `height` and `width` are those of its pictures, in pixels. A drawing whose context shows a picture is an edit of the
    last one: the language model sees it, and the denoiser has its latent. The gradient of drawings reaches the language
    model through the queries, where it trains.
    """

    def __init__(
        self,
        reader: VlmPolicy,
        bridge: Bridge,
        denoiser: Denoiser,
        *,
        height: int,
        width: int,
        autocast: torch.dtype | None = None,
        rollout_batch: int | None = None,
    ) -> None:
        self.reader, self.bridge, self.denoiser, self.size = reader, bridge, denoiser, (height, width)
        painter = Painter(denoiser, QueryConditioner(reader, bridge, denoiser, self.size), height, width)
        parts = {"queries": bridge.queries, "connector": bridge.connector, **denoiser.parts}
        drawer = PaintingPolicy(painter, parts, autocast=autocast, rollout_batch=rollout_batch)
        super().__init__({"text": reader, "denoising": drawer})

    def add_lora(self, config: LoraConfig) -> None:
        """Train adapters on the language model's linear layers instead of its weights."""
        self.reader.add_lora(config)

    def save(self, folder: Path) -> None:
        """Both experts in the layouts of transformers and diffusers, the bridge as safetensors between them."""
        save_unified(Path(folder), self.reader, self.bridge, self.denoiser, self.size)
