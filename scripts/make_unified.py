"""Build a unified model from a language model and a diffusion transformer: a Qwen-VL with new queries and a connector,
or a Janus with a flow decoder for its image tokens.

    python scripts/make_unified.py --language-model Qwen/Qwen2.5-VL-3B-Instruct \
        --diffusion Efficient-Large-Model/Sana_1600M_1024px_diffusers --output models/unirl_zero_init
    python scripts/make_unified.py --language-model deepseek-community/Janus-Pro-1B --diffusion sd3-medium \
        --output runs/decoder
    python scripts/make_unified.py --diffusion sana-1600m --output runs/random

--diffusion is a folder, a hub id, or one of the names below: a published architecture with random weights, to measure
the time and memory of a step (`motet bench step`). Without --language-model a tiny random one is used. Continue with
`motet sft recipes/unirl_zero_pretrain.yaml`.
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
    """SANA with heads of width 32; sizes as in the config.json of the published checkpoints."""
    width = 32 * heads
    return SanaTransformer2DModel(
        in_channels=latent, out_channels=latent, num_attention_heads=heads, attention_head_dim=32, num_layers=layers,
        num_cross_attention_heads=cross_heads, cross_attention_head_dim=width // cross_heads,
        cross_attention_dim=width, caption_channels=caption, sample_size=32, patch_size=1,
    )  # fmt: skip


def sd3(layers: int, heads: int) -> SD3Transformer2DModel:
    """SD3 with heads of width 64."""
    return SD3Transformer2DModel(
        sample_size=128, patch_size=2, in_channels=16, out_channels=16, num_layers=layers, attention_head_dim=64,
        num_attention_heads=heads, joint_attention_dim=4096, caption_projection_dim=64 * heads,
        pooled_projection_dim=2048, pos_embed_max_size=192,
    )  # fmt: skip


def deep_autoencoder(
    latent: int = 32, channels: tuple[int, ...] = (128, 256, 512, 512, 1024, 1024), head: int = 32
) -> AutoencoderDC:
    """DC-AE (f32c32 for SANA), which halves the image size once per entry of `channels` except the last."""
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
    """SD3's autoencoder: 16 channels, an eighth of the image size."""
    kinds = 4
    return AutoencoderKL(
        latent_channels=16, block_out_channels=(128, 256, 512, 512), layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * kinds, up_block_types=("UpDecoderBlock2D",) * kinds,
        use_quant_conv=False, use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609,
    )  # fmt: skip


DENOISERS: dict[str, Any] = {
    "sana-1600m": lambda: (sana(70, 20, 20), deep_autoencoder()),
    "sana-600m": lambda: (sana(36, 16, 28), deep_autoencoder()),
    "sana-tiny": lambda: (sana(2, 2, 2, 64, 4), deep_autoencoder(4, (8, 8, 16, 16), 8)),
    "sd3-medium": lambda: (sd3(24, 24), plain_autoencoder()),
}
"""Transformer and autoencoder with random weights, by name."""


def load_language_policy(name: str | None) -> Any:
    """The policy of a checkpoint in the dtype of its weights; a tiny random one without a name."""
    if name is None:
        return VlmPolicy(*make_tiny_vlm(sizes=TinyVlmSizes(max_positions=1024)))
    return load_policy(name, PolicyConfig(path=name, train=(), device="cpu", dtype="bfloat16"))


def load_denoiser(name: str, seed: int, edits: bool) -> Any:
    """The denoiser of a checkpoint or of a name in DENOISERS; with `edits` it gets an adapter for source images."""
    if name in DENOISERS:
        torch.manual_seed(seed)
        parts = (*DENOISERS[name](), FlowMatchEulerDiscreteScheduler(shift=3.0))
    else:
        opened = open_denoiser(name)
        parts = (opened.transformer, opened.vae, opened.scheduler)
        if not edits or not isinstance(opened, DenoiserWithSourceAdapter) or opened.source_adapter is not None:
            return opened
    return build_denoiser(*parts, adapter=edits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--diffusion", required=True, help=f"folder, hub id, or {', '.join(DENOISERS)}")
    parser.add_argument(
        "--language-model", help="Qwen2.5-VL, Qwen3-VL or Janus: folder or hub id; default: a tiny Qwen-VL"
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--side", type=int, default=1024, help="height and width of its images, in pixels")
    for name, default in (("queries", 256), ("blocks", 12), ("heads", 8), ("feed-forward", 4096), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument(
        "--unirl-zero", action="store_true", help="source images as in UniRL-Zero's code; see SourceAdapter"
    )
    arguments = parser.parse_args()
    if arguments.output.exists() and any(arguments.output.iterdir()):
        parser.error(f"{arguments.output} is in use: give another --output")
    language_policy = load_language_policy(arguments.language_model)
    has_image_tokens = "image" in language_policy.kinds
    denoiser = load_denoiser(arguments.diffusion, arguments.seed, edits=not has_image_tokens)
    if arguments.unirl_zero:
        if getattr(denoiser, "source_adapter", None) is None:
            parser.error("--unirl-zero: this diffusion transformer has no source adapter")
        denoiser.source_adapter.unirl_zero = True
    embeddings = language_policy.model.get_input_embeddings().weight
    connector = ConnectorConfig(
        input_width=embeddings.shape[1], output_width=denoiser.condition_width, pooled_width=denoiser.pooled_width,
        num_queries=language_policy.num_image_tokens if has_image_tokens else arguments.queries,
        reads="tokens" if has_image_tokens else "queries",
        num_blocks=arguments.blocks, num_heads=arguments.heads, feed_forward=arguments.feed_forward,
    )  # fmt: skip
    scale = float(embeddings.detach().float().pow(2).mean().sqrt())
    query_connector = QueryConnector(connector, scale=scale, seed=arguments.seed)
    denoiser.latent_shape(arguments.side, arguments.side)  # raises for a side that does not fit
    UnifiedPolicy(language_policy, query_connector, denoiser, height=arguments.side, width=arguments.side).save(
        arguments.output
    )
    counts = {"language model": language_policy.model, "connector": query_connector, **denoiser.parts}
    told = ", ".join(
        f"{name} {sum(p.numel() for p in part.parameters()) / 1e6:,.0f} M" for name, part in counts.items()
    )
    print(f"{arguments.output}: {told}")


if __name__ == "__main__":
    main()
