"""Small unified models of the real classes: a Qwen3-VL, a SANA with its AutoencoderDC, and the connector between them.

One token of both models is one square of `vlm.patch * vlm.merge` pixels.

The weights are random; see `motet.policies.tiny.common` on how they start.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from motet.policies.diffusion.models import build_denoiser
from motet.policies.diffusion.models.loading import diffusers_library
from motet.policies.qwen_vl import VlmPolicy
from motet.policies.tiny.common import initialise
from motet.policies.tiny.qwen_vl import TinyVlmSizes, make_tiny_vlm
from motet.policies.unified.connector import ConnectorConfig, QueryConnector
from motet.policies.unified.policy import UnifiedPolicy


@dataclass(frozen=True)
class TinyUnifiedSizes:
    """Sizes of a tiny unified model. Images are squares of `vlm.image` pixels.

    The autoencoder halves an image once per entry of `vae_channels` but the last, and its latents have `latent`
    channels. `width` is the transformer's, a multiple of 4 and of `heads`; it has `layers` blocks, reads `queries`
    conditions, and its connector has `blocks` blocks with `feed_forward` hidden units.
    """

    vlm: TinyVlmSizes = field(
        default_factory=lambda: TinyVlmSizes(
            intermediate=288,
            kv_heads=4,
            vision_hidden=64,
            vision_layers=2,
            vision_intermediate=128,
            max_positions=256,
        )
    )
    latent: int = 8
    vae_channels: tuple[int, ...] = (16, 16, 32, 32)
    width: int = 112
    layers: int = 4
    heads: int = 7
    queries: int = 16
    blocks: int = 1
    feed_forward: int = 256


def make_tiny_unified(tokenizer: PreTrainedTokenizerFast, sizes: TinyUnifiedSizes, seed: int = 0) -> UnifiedPolicy:
    """A randomly initialised model in float32; nothing trains yet. It edits: its transformer has a source adapter."""
    model, processor = make_tiny_vlm("qwen3_vl", sizes=sizes.vlm, tokenizer=tokenizer, seed=seed)
    side, cells = sizes.vlm.image, 2 ** (len(sizes.vae_channels) - 1)
    torch.manual_seed(seed)
    transformer = tiny_sana(sizes, side // cells)
    scheduler = diffusers_library().FlowMatchEulerDiscreteScheduler(shift=1.0)
    denoiser = build_denoiser(transformer, tiny_autoencoder(sizes), scheduler, adapter=True)
    connector = ConnectorConfig(
        input_width=sizes.vlm.hidden,
        output_width=denoiser.condition_width,
        num_queries=sizes.queries,
        num_blocks=sizes.blocks,
        num_heads=sizes.vlm.heads,
        feed_forward=sizes.feed_forward,
    )
    connector = QueryConnector(connector, scale=0.5, seed=seed)
    initialise([connector.connector])
    return UnifiedPolicy(VlmPolicy(model, processor), connector, denoiser, height=side, width=side)


def tiny_sana(sizes: TinyUnifiedSizes, side: int) -> Any:
    """A transformer over latents of `side` x `side`, one token each, with positions; its velocities start at zero."""
    transformer = diffusers_library().SanaTransformer2DModel(
        in_channels=sizes.latent,
        out_channels=sizes.latent,
        num_attention_heads=sizes.heads,
        attention_head_dim=sizes.width // sizes.heads,
        num_layers=sizes.layers,
        num_cross_attention_heads=sizes.heads,
        cross_attention_head_dim=sizes.width // sizes.heads,
        cross_attention_dim=sizes.width,
        caption_channels=sizes.vlm.hidden,
        sample_size=side,
        patch_size=1,
        interpolation_scale=1,
    )
    nn.init.zeros_(transformer.proj_out.weight)
    return transformer


def tiny_autoencoder(sizes: TinyUnifiedSizes) -> Any:
    """An AutoencoderDC whose first stage only halves."""
    count = len(sizes.vae_channels)
    layers = (0, *(1,) * (count - 1))
    return diffusers_library().AutoencoderDC(
        in_channels=3,
        latent_channels=sizes.latent,
        attention_head_dim=sizes.latent,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        encoder_block_out_channels=sizes.vae_channels,
        decoder_block_out_channels=sizes.vae_channels,
        encoder_layers_per_block=layers,
        decoder_layers_per_block=layers,
        encoder_qkv_multiscales=((),) * count,
        decoder_qkv_multiscales=((),) * count,
        scaling_factor=1.0,
    )
