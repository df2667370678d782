"""Pipelines of diffusers' real classes, with random weights and widths of a few numbers: one builder per family.

Latents have 4 channels, and autoencoders shrink pictures by 2 (SANA's by 8). Nothing is downloaded.
"""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch

FAMILIES = ("sd3", "sana", "flux", "kontext", "klein", "qwen")
SIZES = dict.fromkeys(FAMILIES, (16, 24)) | {"sana": (32, 64)}
"""Height and width that each family's tests draw."""
LETTERS = [*string.ascii_lowercase, *string.digits, *".,!?:'<>|_-/()"]


def build(family: str) -> Any:
    """The family's pipeline, the same one at every call."""
    generator_state = torch.get_rng_state()
    torch.manual_seed(sum(map(ord, family)))
    try:
        pipeline = _BUILDERS[family]()
        if family not in ("sd3", "sana"):
            _listening(pipeline.transformer)
    finally:
        torch.set_rng_state(generator_state)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _listening(transformer: Any) -> None:
    """Larger weights and sharper attention: as these classes are initialised, prompts would hardly change a velocity,
    and a test would not see that the wrong one was taken.
    """
    with torch.no_grad():
        for name, parameter in transformer.named_parameters():
            if parameter.dim() >= 2:
                parameter.mul_(2)
            elif ".norm_" in name:
                parameter.mul_(4)


def write(family: str, folder: Path) -> Path:
    """Let diffusers save the family's pipeline."""
    build(family).save_pretrained(folder)
    return folder


def _sd3() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline

    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
        num_attention_heads=2, joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=24,
        pos_embed_max_size=16, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_kl(),
        text_encoder=_clip(12),
        tokenizer=_clip_tokenizer(),
        text_encoder_2=_clip(12),
        tokenizer_2=_clip_tokenizer(),
        text_encoder_3=_t5(32),
        tokenizer_3=_t5_tokenizer(),
    )


def _sana() -> Any:
    from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel
    from transformers import Gemma2Config, Gemma2Model, GemmaTokenizer

    transformer = SanaTransformer2DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, num_layers=2,
        num_cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_dim=16, caption_channels=16,
        sample_size=4, patch_size=1, qk_norm="rms_norm_across_heads", timestep_scale=0.001,
    )  # fmt: skip
    blocks = dict.fromkeys(
        ("encoder_block_types", "decoder_block_types"), ("ResBlock", "ResBlock", "ResBlock", "ResBlock")
    )
    vae = AutoencoderDC(
        in_channels=3, latent_channels=4, attention_head_dim=4, **blocks, encoder_block_out_channels=(4, 4, 8, 8),
        decoder_block_out_channels=(4, 4, 8, 8), encoder_layers_per_block=(1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1), encoder_qkv_multiscales=((), (), (), ()),
        decoder_qkv_multiscales=((), (), (), ()), scaling_factor=0.41407,
    )  # fmt: skip
    config = Gemma2Config(
        vocab_size=len(LETTERS) + 8, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, initializer_range=0.3,
    )  # fmt: skip
    scheduler = DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, final_sigmas_type="zero"
    )
    vocab = {token: n for n, token in enumerate(["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *LETTERS])}
    return SanaPipeline(
        tokenizer=GemmaTokenizer(vocab=vocab, merges=[]),
        text_encoder=Gemma2Model(config).eval(),
        vae=vae,
        transformer=transformer,
        scheduler=scheduler,
    )


def _flux_parts(guidance_embeds: bool) -> dict[str, Any]:
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel

    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=12, guidance_embeds=guidance_embeds, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    return {
        "transformer": transformer,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        "vae": _kl(),
        "text_encoder": _clip(12, projected=False),
        "tokenizer": _clip_tokenizer(),
        "text_encoder_2": _t5(32),
        "tokenizer_2": _t5_tokenizer(),
    }


def _flux() -> Any:
    from diffusers import FluxPipeline

    return FluxPipeline(**_flux_parts(guidance_embeds=True))


def _kontext() -> Any:
    from diffusers import FluxKontextPipeline

    return FluxKontextPipeline(**_flux_parts(guidance_embeds=True))


def _klein() -> Any:
    from diffusers import (
        AutoencoderKLFlux2,
        FlowMatchEulerDiscreteScheduler,
        Flux2KleinPipeline,
        Flux2Transformer2DModel,
    )
    from transformers import Qwen3Config, Qwen3ForCausalLM

    transformer = Flux2Transformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=24, timestep_guidance_channels=16, mlp_ratio=2.0, axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )  # fmt: skip
    vae = AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=16,
    )  # fmt: skip
    vae.bn.running_mean.normal_()
    vae.bn.running_var.uniform_(0.5, 2.0)
    config = Qwen3Config(
        vocab_size=64, hidden_size=8, intermediate_size=16, num_hidden_layers=28, num_attention_heads=2,
        num_key_value_heads=1, head_dim=4, initializer_range=0.3,
    )  # fmt: skip
    return Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae,
        text_encoder=Qwen3ForCausalLM(config).eval(),
        tokenizer=_qwen_tokenizer(),
        transformer=transformer,
    )


def _qwen_parts() -> dict[str, Any]:
    from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    transformer = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 2], num_res_blocks=1, temperal_downsample=[False],
        latents_mean=[-0.7, 0.2, 0.9, 0.1], latents_std=[2.8, 1.4, 2.3, 1.2],
    )  # fmt: skip
    text = {
        "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "num_key_value_heads": 1, "initializer_range": 0.3,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
    }  # fmt: skip
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 16}
    return {
        "transformer": transformer,
        "vae": vae,
        "text_encoder": Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(text_config=text, vision_config=vision)
        ).eval(),
        "tokenizer": _qwen_tokenizer(),
        "scheduler": FlowMatchEulerDiscreteScheduler(
            base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02, use_dynamic_shifting=True
        ),
    }


def _qwen() -> Any:
    from diffusers import QwenImagePipeline

    return QwenImagePipeline(**_qwen_parts())


def qwen_edit() -> Any:
    """Qwen-Image-Edit without its processor, which cannot be constructed without torchvision: give it embeddings."""
    from diffusers import QwenImageEditPlusPipeline

    pipeline = QwenImageEditPlusPipeline(**_qwen_parts(), processor=None)
    _listening(pipeline.transformer)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _kl() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16), latent_channels=4, norm_num_groups=4, sample_size=16, use_quant_conv=False,
        use_post_quant_conv=False, scaling_factor=1.5305, shift_factor=0.0609,
    )  # fmt: skip


def _clip(width: int, projected: bool = True) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=2 * len(LETTERS) + 3, hidden_size=width, intermediate_size=16, projection_dim=width,
        num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=77, bos_token_id=0, eos_token_id=1,
        pad_token_id=1, initializer_range=0.3, initializer_factor=3.0,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def _clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    words = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    return CLIPTokenizer(vocab={word: n for n, word in enumerate(words)}, merges=[], model_max_length=77)


def _t5(width: int) -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(
        vocab_size=len(LETTERS) + 8, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2, initializer_factor=1.0
    )
    return T5EncoderModel(config).eval()


def _t5_tokenizer() -> Any:
    from transformers import T5TokenizerFast

    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in LETTERS)]
    return T5TokenizerFast(vocab=vocab, extra_ids=0)


def _qwen_tokenizer() -> Any:
    from transformers import Qwen2Tokenizer

    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "Ġ", "Ċ", *LETTERS]
    tokenizer = Qwen2Tokenizer(vocab={word: n for n, word in enumerate(words)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


_BUILDERS = {"sd3": _sd3, "sana": _sana, "flux": _flux, "kontext": _kontext, "klein": _klein, "qwen": _qwen}
