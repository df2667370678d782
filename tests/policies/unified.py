"""Tiny unified models: a tiny Qwen-VL, a bridge, and a diffusion transformer over pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, SanaTransformer2DModel, SD3Transformer2DModel

from motet.policies.diffusion.models import build_denoiser
from motet.policies.qwen_vl import VlmPolicy
from motet.policies.unified import UnifiedPolicy
from motet.policies.unified.connector import ConnectorConfig, QueryConnector
from tests.policies.vlms import tiny

SIDE = 16


def transformer(family: str) -> Any:
    """Of RGB pixels, in patches of 4."""
    torch.manual_seed(3)
    if family == "sd3":
        return SD3Transformer2DModel(
            sample_size=SIDE, patch_size=4, in_channels=3, out_channels=3, num_layers=2, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=24, caption_projection_dim=16, pooled_projection_dim=12,
            pos_embed_max_size=8,
        )  # fmt: skip
    return SanaTransformer2DModel(
        in_channels=3, out_channels=3, num_attention_heads=2, attention_head_dim=8, num_layers=2,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=24,
        sample_size=SIDE, patch_size=4,
    )  # fmt: skip


def build(family: str = "sana", reader: str = "qwen2_5_vl", **settings: Any) -> UnifiedPolicy:
    """The same model at every call; nothing trains yet."""
    model, processor = tiny(reader)
    denoiser = build_denoiser(transformer(family), None, FlowMatchEulerDiscreteScheduler(shift=1.0), adapter=True)
    sizes = ConnectorConfig(
        model.config.text_config.hidden_size, denoiser.condition_width, denoiser.pooled_width,
        num_queries=3, num_blocks=2, num_heads=4, feed_forward=48,
    )  # fmt: skip
    torch.manual_seed(4)
    with torch.no_grad():
        for name, weight in denoiser.transformer.named_parameters():
            if "scale_shift_table" not in name and weight.ndim > 1:
                weight.normal_(std=0.2)
        denoiser.source_adapter.project.weight.normal_(std=0.2)
    return UnifiedPolicy(
        VlmPolicy(model, processor), QueryConnector(sizes), denoiser, height=SIDE, width=SIDE, **settings
    )


def save(folder: Path, family: str = "sana") -> Path:
    """`build` as a checkpoint folder."""
    build(family).save(folder)
    return folder
