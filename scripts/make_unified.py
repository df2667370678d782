"""Put a unified model together from two experts: a Qwen-VL and a diffusion transformer, with new queries between them,
or a Janus and the flow decoder of its image tokens.

    python scripts/make_unified.py --reader Qwen/Qwen2.5-VL-3B-Instruct \
        --expert Efficient-Large-Model/Sana_1600M_1024px_diffusers --output models/unirl_zero_init
    python scripts/make_unified.py --reader deepseek-community/Janus-Pro-1B --expert sd3-medium --output runs/decoder
    python scripts/make_unified.py --expert sana-1600m --output runs/random

An expert is a folder, a hub id, or one of the names below: then its class and sizes are those of the published model
and its weights random, to see how long a step takes and what it holds (`motet bench step`). Without a reader there is a
tiny random one. What follows is `motet sft recipes/unirl_zero_pretrain.yaml`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
)

from motet.config import PolicyConfig
from motet.policies import load_policy
from motet.policies.diffusion.models import build_denoiser
from motet.policies.diffusion.models.loading import open_denoiser
from motet.policies.diffusion.models.source_adapter import DenoiserWithSourceAdapter
from motet.policies.qwen_vl import VlmPolicy
from motet.policies.tiny.qwen_vl import TinyVlmSizes, make_tiny_vlm
from motet.policies.unified import UnifiedPolicy
from motet.policies.unified.connector import ConnectorConfig, QueryConnector


def sana(heads: int, cross_heads: int, layers: int, caption: int = 2304, latent: int = 32) -> SanaTransformer2DModel:
    """Heads are 32 wide; sizes as in the config.json of the published checkpoints."""
    width = 32 * heads
    return SanaTransformer2DModel(
        in_channels=latent, out_channels=latent, num_attention_heads=heads, attention_head_dim=32, num_layers=layers,
        num_cross_attention_heads=cross_heads, cross_attention_head_dim=width // cross_heads,
        cross_attention_dim=width, caption_channels=caption, sample_size=32, patch_size=1,
    )  # fmt: skip


def sd3(layers: int, heads: int) -> SD3Transformer2DModel:
    """Heads are 64 wide."""
    return SD3Transformer2DModel(
        sample_size=128, patch_size=2, in_channels=16, out_channels=16, num_layers=layers, attention_head_dim=64,
        num_attention_heads=heads, joint_attention_dim=4096, caption_projection_dim=64 * heads,
        pooled_projection_dim=2048, pos_embed_max_size=192,
    )  # fmt: skip


def deep_autoencoder(
    latent: int = 32, channels: tuple[int, ...] = (128, 256, 512, 512, 1024, 1024), head: int = 32
) -> AutoencoderDC:
    """DC-AE: f32c32 as SANA has it, halving a picture once per entry but the last."""
    attends = len(channels) // 2
    blocks = ("ResBlock",) * (len(channels) - attends) + ("EfficientViTBlock",) * attends
    scales = ((),) * (len(channels) - attends) + ((5,),) * attends
    layers = (2,) * (len(channels) - attends) + (3,) * attends
    return AutoencoderDC(
        latent_channels=latent, attention_head_dim=head, encoder_block_types=blocks, decoder_block_types=blocks,
        encoder_block_out_channels=channels, decoder_block_out_channels=channels, encoder_layers_per_block=layers,
        decoder_layers_per_block=layers, encoder_qkv_multiscales=scales, decoder_qkv_multiscales=scales,
        downsample_block_type="Conv", upsample_block_type="interpolate", scaling_factor=0.41407,
    )  # fmt: skip


def plain_autoencoder() -> AutoencoderKL:
    """SD3's: 16 channels, an eighth of the side."""
    kinds = 4
    return AutoencoderKL(
        latent_channels=16, block_out_channels=(128, 256, 512, 512), layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * kinds, up_block_types=("UpDecoderBlock2D",) * kinds,
        use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609,
    )  # fmt: skip


EXPERTS: dict[str, Any] = {
    "sana-1600m": lambda: (sana(70, 20, 20), deep_autoencoder()),
    "sana-600m": lambda: (sana(36, 16, 28), deep_autoencoder()),
    "sana-tiny": lambda: (sana(2, 2, 2, 64, 4), deep_autoencoder(4, (8, 8, 16, 16), 8)),
    "sd3-medium": lambda: (sd3(24, 24), plain_autoencoder()),
}
"""Transformer and autoencoder with random weights, by name."""


def reader_of(name: str | None) -> Any:
    """The policy of a checkpoint, in the type that its weights are stored in; a tiny one at random without a name."""
    if name is None:
        return VlmPolicy(*make_tiny_vlm(sizes=TinyVlmSizes(max_positions=1024)))
    return load_policy(name, PolicyConfig(path=name, train=(), device="cpu", autocast="bfloat16"))


def expert_of(name: str, seed: int, edits: bool) -> Any:
    """The denoiser of a checkpoint, or of a name in EXPERTS; if it `edits`, it gets a place for source pictures."""
    if name in EXPERTS:
        torch.manual_seed(seed)
        parts = (*EXPERTS[name](), FlowMatchEulerDiscreteScheduler(shift=3.0))
    else:
        opened = open_denoiser(name)
        parts = (opened.transformer, opened.vae, opened.scheduler)
        if not edits or not isinstance(opened, DenoiserWithSourceAdapter) or opened.source_adapter is not None:
            return opened
    return build_denoiser(*parts, adapter=edits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--expert", required=True, help=f"folder, hub id, or {', '.join(EXPERTS)}")
    parser.add_argument("--reader", help="Qwen2.5-VL, Qwen3-VL or Janus: folder or hub id; none: a tiny Qwen-VL")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--side", type=int, default=1024, help="height and width of its pictures, in pixels")
    for name, default in (("queries", 256), ("blocks", 12), ("heads", 8), ("feed-forward", 4096), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--unirl-zero", action="store_true", help="sources as in UniRL-Zero's code; see SourceAdapter")
    chosen = parser.parse_args()
    if chosen.output.exists() and any(chosen.output.iterdir()):
        parser.error(f"{chosen.output} is in use: give another --output")
    reader = reader_of(chosen.reader)
    draws = "image" in reader.kinds
    denoiser = expert_of(chosen.expert, chosen.seed, edits=not draws)
    if chosen.unirl_zero:
        if getattr(denoiser, "source_adapter", None) is None:
            parser.error("--unirl-zero: this expert has no source adapter")
        denoiser.source_adapter.unirl_zero = True
    embeddings = reader.model.get_input_embeddings().weight
    connector = ConnectorConfig(
        input_width=embeddings.shape[1], output_width=denoiser.condition_width, pooled_width=denoiser.pooled_width,
        num_queries=reader.num_image_tokens if draws else chosen.queries, reads="tokens" if draws else "queries",
        num_blocks=chosen.blocks, num_heads=chosen.heads, feed_forward=chosen.feed_forward,
    )  # fmt: skip
    scale = float(embeddings.detach().float().pow(2).mean().sqrt())
    bridge = QueryConnector(connector, scale=scale, seed=chosen.seed)
    denoiser.latent_shape(chosen.side, chosen.side)  # refuses a side that does not fit
    UnifiedPolicy(reader, bridge, denoiser, height=chosen.side, width=chosen.side).save(chosen.output)
    counts = {"reader": reader.model, "bridge": bridge, **denoiser.parts}
    told = ", ".join(
        f"{name} {sum(p.numel() for p in part.parameters()) / 1e6:,.0f} M" for name, part in counts.items()
    )
    print(f"{chosen.output}: {told}")


if __name__ == "__main__":
    main()
