"""A Janus as DeepSeek's code has it, in a few functions over its own tensor names: a reference for conversions.

Written from the mathematics of github.com/deepseek-ai/Janus (janus/models), and from nothing of ours: `weights` draws a
state dict of a small model under the original names, the other functions run it. Widths are tiny, all else is as there:
fused q, k, v in the vision tower, five blocks of an image tokenizer with attention at its lowest level, two-layer
aligners, a Llama with an untied head.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from motet.policies.tiny.janus import BOS, EOS, PAD, tiny_tokenizer

VISION, HEADS, LAYERS, PATCH, SIDE = 24, 3, 2, 4, 16
HIDDEN, TEXT_HEADS, KV_HEADS, TEXT_LAYERS, WIDE = 32, 4, 2, 2, 48
BASE, MULTIPLIERS, BLOCKS, LATENT, CODES, CODE = 32, (1, 2, 2), 2, 32, 20, 8
VOCABULARY = 330
GRID = SIDE // PATCH

State = dict[str, Tensor]


# --- its tensors


def weights(seed: int = 0) -> State:
    """All tensors of the original, including unused ones."""
    noise = torch.Generator().manual_seed(seed)
    state: State = {}

    def put(name: str, *shape: int, scale: float | None = None) -> None:
        fan_in = math.prod(shape[1:]) if len(shape) > 1 else 1
        state[name] = torch.randn(shape, generator=noise) * (scale if scale is not None else 0.8 / fan_in**0.5)

    def linear(name: str, out: int, into: int, *kernel: int) -> None:
        put(f"{name}.weight", out, into, *kernel)
        put(f"{name}.bias", out, scale=0.1)

    def norm(name: str, width: int) -> None:
        put(f"{name}.weight", width, scale=0.1)
        state[f"{name}.weight"] += 1
        put(f"{name}.bias", width, scale=0.1)

    _vision(put, linear, norm)
    for name, into in (("aligner", VISION), ("gen_aligner", CODE)):
        linear(f"{name}.layers.0", HIDDEN, into)
        linear(f"{name}.layers.2", HIDDEN, HIDDEN)
    _tokenizer(put, linear, norm)
    put("gen_embed.weight", CODES, CODE, scale=1.0)
    linear("gen_head.output_mlp_projector", HIDDEN, HIDDEN)
    linear("gen_head.vision_head", CODES, HIDDEN)
    put("language_model.model.embed_tokens.weight", VOCABULARY, HIDDEN, scale=0.5)
    put("language_model.lm_head.weight", VOCABULARY, HIDDEN)
    for n in range(TEXT_LAYERS):
        at, head = f"language_model.model.layers.{n}", HIDDEN // TEXT_HEADS
        for name, out, into in (
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.k_proj", KV_HEADS * head, HIDDEN),
            ("self_attn.v_proj", KV_HEADS * head, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_proj", WIDE, HIDDEN),
            ("mlp.up_proj", WIDE, HIDDEN),
            ("mlp.down_proj", HIDDEN, WIDE),
        ):
            put(f"{at}.{name}.weight", out, into)
        for name in ("input_layernorm", "post_attention_layernorm"):
            put(f"{at}.{name}.weight", HIDDEN, scale=0.1)
            state[f"{at}.{name}.weight"] += 1
    put("language_model.model.norm.weight", HIDDEN, scale=0.3)
    state["language_model.model.norm.weight"] += 1
    return state


def _vision(put, linear, norm) -> None:
    tower = "vision_model.vision_tower"
    put(f"{tower}.pos_embed", 1, GRID**2, VISION, scale=0.3)
    linear(f"{tower}.patch_embed.proj", VISION, 3, PATCH, PATCH)
    for n in range(LAYERS):
        at = f"{tower}.blocks.{n}"
        norm(f"{at}.norm1", VISION)
        linear(f"{at}.attn.qkv", 3 * VISION, VISION)
        linear(f"{at}.attn.proj", VISION, VISION)
        norm(f"{at}.norm2", VISION)
        linear(f"{at}.mlp.fc1", 4 * VISION, VISION)
        linear(f"{at}.mlp.fc2", VISION, 4 * VISION)
    norm(f"{tower}.norm", VISION)
    pool = f"{tower}.attn_pool"  # never used
    put(f"{pool}.latent", 1, 1, VISION)
    linear(f"{pool}.q", VISION, VISION)
    linear(f"{pool}.kv", 2 * VISION, VISION)
    linear(f"{pool}.proj", VISION, VISION)
    norm(f"{pool}.norm", VISION)
    linear(f"{pool}.mlp.fc1", 4 * VISION, VISION)
    linear(f"{pool}.mlp.fc2", VISION, 4 * VISION)


def _tokenizer(put, linear, norm) -> None:
    def res(name: str, into: int, out: int) -> None:
        norm(f"{name}.norm1", into)
        linear(f"{name}.conv1", out, into, 3, 3)
        norm(f"{name}.norm2", out)
        linear(f"{name}.conv2", out, out, 3, 3)
        if into != out:
            linear(f"{name}.nin_shortcut", out, into, 1, 1)

    def attention(name: str, width: int) -> None:
        norm(f"{name}.norm", width)
        for part in ("q", "k", "v", "proj_out"):
            linear(f"{name}.{part}", width, width, 1, 1)

    widths, last = [BASE * m for m in MULTIPLIERS], len(MULTIPLIERS) - 1
    for side, path, sampling in (
        ("encoder", list(range(last + 1)), "downsample"),
        ("decoder", list(range(last, -1, -1)), "upsample"),
    ):
        at = f"gen_vision_model.{side}"
        into = BASE if side == "encoder" else widths[last]
        linear(f"{at}.conv_in", into, 3 if side == "encoder" else LATENT, 3, 3)
        for place, level in enumerate(path):
            for block in range(BLOCKS + (side == "decoder")):
                res(f"{at}.conv_blocks.{place}.res.{block}", into, widths[level])
                into = widths[level]
                if level == last:
                    attention(f"{at}.conv_blocks.{place}.attn.{block}", into)
            if place != last:
                linear(f"{at}.conv_blocks.{place}.{sampling}.conv", into, into, 3, 3)
        middle = widths[last]
        res(f"{at}.mid.0", middle, middle)
        attention(f"{at}.mid.1", middle)
        res(f"{at}.mid.2", middle, middle)
        norm(f"{at}.norm_out", into)
        linear(f"{at}.conv_out", LATENT if side == "encoder" else 3, into, 3, 3)
    linear("gen_vision_model.quant_conv", CODE, LATENT, 1, 1)
    linear("gen_vision_model.post_quant_conv", LATENT, CODE, 1, 1)
    put("gen_vision_model.quantize.embedding.weight", CODES, CODE, scale=1.0)  # rows of any length: they are normalised
    put("gen_vision_model.quantize.codebook_used", 64, scale=1.0)


# --- its mathematics


def encode_vision(state: State, pixels: Tensor) -> Tensor:
    """Images `[B, 3, H, W]` -> embeddings for the language model, `[B, T, D]`."""
    tower = "vision_model.vision_tower"
    x = F.conv2d(pixels, *_pair(state, f"{tower}.patch_embed.proj"), stride=PATCH).flatten(2).transpose(1, 2)
    x = x + state[f"{tower}.pos_embed"]
    for n in range(LAYERS):
        at = f"{tower}.blocks.{n}"
        h = F.linear(_layer_norm(state, f"{at}.norm1", x), *_pair(state, f"{at}.attn.qkv"))
        batch, tokens, _ = h.shape
        q, k, v = h.reshape(batch, tokens, 3, HEADS, VISION // HEADS).permute(2, 0, 3, 1, 4)
        shares = (q @ k.transpose(-1, -2) / math.sqrt(VISION // HEADS)).softmax(dim=-1)
        mixed = (shares @ v).transpose(1, 2).reshape(batch, tokens, VISION)
        x = x + F.linear(mixed, *_pair(state, f"{at}.attn.proj"))
        h = F.gelu(F.linear(_layer_norm(state, f"{at}.norm2", x), *_pair(state, f"{at}.mlp.fc1")))
        x = x + F.linear(h, *_pair(state, f"{at}.mlp.fc2"))
    return _align(state, "aligner", _layer_norm(state, f"{tower}.norm", x))


def embed_codes(state: State, codes: Tensor) -> Tensor:
    """Image tokens `[B, N]` -> embeddings for the language model, `[B, N, D]`."""
    return _align(state, "gen_aligner", state["gen_embed.weight"][codes])


def embed_text(state: State, ids: Tensor) -> Tensor:
    return state["language_model.model.embed_tokens.weight"][ids]


def language_model(state: State, x: Tensor) -> Tensor:
    """Embeddings `[B, T, D]` -> the language model's last hidden states."""
    batch, tokens, _ = x.shape
    head = HIDDEN // TEXT_HEADS
    angles = torch.arange(tokens)[:, None] / 10000 ** (torch.arange(0, head, 2) / head)[None]
    cos, sin = torch.cat([angles, angles], dim=1).cos(), torch.cat([angles, angles], dim=1).sin()

    def turned(h: Tensor) -> Tensor:
        front, back = h.chunk(2, dim=-1)
        return h * cos + torch.cat([-back, front], dim=-1) * sin

    future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
    for n in range(TEXT_LAYERS):
        at = f"language_model.model.layers.{n}"
        h = _rms_norm(state, f"{at}.input_layernorm", x)
        q, k, v = (
            F.linear(h, state[f"{at}.self_attn.{name}_proj.weight"]).view(batch, tokens, -1, head).transpose(1, 2)
            for name in "qkv"
        )
        k, v = (one.repeat_interleave(TEXT_HEADS // KV_HEADS, dim=1) for one in (turned(k), v))
        scores = (turned(q) @ k.transpose(-1, -2) / math.sqrt(head)).masked_fill(future, -torch.inf)
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, tokens, HIDDEN)
        x = x + F.linear(mixed, state[f"{at}.self_attn.o_proj.weight"])
        h = _rms_norm(state, f"{at}.post_attention_layernorm", x)
        gate, up = (F.linear(h, state[f"{at}.mlp.{name}_proj.weight"]) for name in ("gate", "up"))
        x = x + F.linear(F.silu(gate) * up, state[f"{at}.mlp.down_proj.weight"])
    return _rms_norm(state, "language_model.model.norm", x)


def text_logits(state: State, hidden: Tensor) -> Tensor:
    return F.linear(hidden, state["language_model.lm_head.weight"])


def code_logits(state: State, hidden: Tensor) -> Tensor:
    h = F.gelu(F.linear(hidden, *_pair(state, "gen_head.output_mlp_projector")))
    return F.linear(h, *_pair(state, "gen_head.vision_head"))


def encode(state: State, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Images -> latents before quantising `[B, C, h, w]`, and codes `[B, N]`, by the closest unit vector."""
    at, last = "gen_vision_model.encoder", len(MULTIPLIERS) - 1
    x = _conv(state, f"{at}.conv_in", pixels)
    for level in range(last + 1):
        for block in range(BLOCKS):
            x = _res(state, f"{at}.conv_blocks.{level}.res.{block}", x)
            if level == last:
                x = _attention(state, f"{at}.conv_blocks.{level}.attn.{block}", x)
        if level != last:
            x = F.conv2d(F.pad(x, (0, 1, 0, 1)), *_pair(state, f"{at}.conv_blocks.{level}.downsample.conv"), stride=2)
    latents = F.conv2d(_ends(state, at, x), *_pair(state, "gen_vision_model.quant_conv"))
    z = F.normalize(latents.permute(0, 2, 3, 1).flatten(1, 2), dim=-1)
    codebook = F.normalize(state["gen_vision_model.quantize.embedding.weight"], dim=-1)
    return latents, torch.cdist(z, codebook).argmin(dim=-1)


def decode(state: State, codes: Tensor) -> Tensor:
    """Codes `[B, N]` -> pixels `[B, 3, H, W]`."""
    at, last = "gen_vision_model.decoder", len(MULTIPLIERS) - 1
    codebook = F.normalize(state["gen_vision_model.quantize.embedding.weight"], dim=-1)
    z = codebook[codes].view(len(codes), GRID, GRID, CODE).permute(0, 3, 1, 2)
    x = _conv(state, f"{at}.conv_in", F.conv2d(z, *_pair(state, "gen_vision_model.post_quant_conv")))
    x = _middle(state, at, x)
    for place in range(last + 1):
        for block in range(BLOCKS + 1):
            x = _res(state, f"{at}.conv_blocks.{place}.res.{block}", x)
            if place == 0:
                x = _attention(state, f"{at}.conv_blocks.{place}.attn.{block}", x)
        if place != last:
            x = _conv(state, f"{at}.conv_blocks.{place}.upsample.conv", F.interpolate(x, scale_factor=2.0))
    return _conv(state, f"{at}.conv_out", F.silu(_group_norm(state, f"{at}.norm_out", x)))


def _ends(state: State, at: str, x: Tensor) -> Tensor:
    x = _middle(state, at, x)
    return _conv(state, f"{at}.conv_out", F.silu(_group_norm(state, f"{at}.norm_out", x)))


def _middle(state: State, at: str, x: Tensor) -> Tensor:
    return _res(state, f"{at}.mid.2", _attention(state, f"{at}.mid.1", _res(state, f"{at}.mid.0", x)))


def _res(state: State, at: str, x: Tensor) -> Tensor:
    h = _conv(state, f"{at}.conv1", F.silu(_group_norm(state, f"{at}.norm1", x)))
    h = _conv(state, f"{at}.conv2", F.silu(_group_norm(state, f"{at}.norm2", h)))
    return h + (F.conv2d(x, *_pair(state, f"{at}.nin_shortcut")) if f"{at}.nin_shortcut.weight" in state else x)


def _attention(state: State, at: str, x: Tensor) -> Tensor:
    h = _group_norm(state, f"{at}.norm", x)
    q, k, v = (F.conv2d(h, *_pair(state, f"{at}.{name}")).flatten(2) for name in "qkv")
    shares = (q.transpose(1, 2) @ k / math.sqrt(x.shape[1])).softmax(dim=-1)  # queries, keys
    return x + F.conv2d((v @ shares.transpose(1, 2)).view_as(x), *_pair(state, f"{at}.proj_out"))


def _align(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(F.gelu(F.linear(x, *_pair(state, f"{name}.layers.0"))), *_pair(state, f"{name}.layers.2"))


def _pair(state: State, name: str) -> tuple[Tensor, Tensor]:
    return state[f"{name}.weight"], state[f"{name}.bias"]


def _conv(state: State, name: str, x: Tensor) -> Tensor:
    return F.conv2d(x, *_pair(state, name), padding=1)


def _layer_norm(state: State, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], *_pair(state, name), eps=1e-6)


def _group_norm(state: State, name: str, x: Tensor) -> Tensor:
    return F.group_norm(x, 32, *_pair(state, name), eps=1e-6)


def _rms_norm(state: State, name: str, x: Tensor) -> Tensor:
    return x * (x.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt() * state[f"{name}.weight"]


# --- its files


def config() -> dict:
    """Its config.json; `heads` replaces the name of a published tower."""

    def part(cls: str, **params) -> dict:
        return {"cls": cls, "params": params}

    return {
        "model_type": "multi_modality",
        "vision_config": part("CLIPVisionTower", image_size=SIDE, model_name="tiny", heads=HEADS, select_layer=-1),
        "aligner_config": part("MlpProjector", depth=2, input_dim=VISION, n_embed=HIDDEN, projector_type="mlp_gelu"),
        "gen_vision_config": part("VQ-16", image_token_size=CODES, n_embed=CODE),
        "gen_aligner_config": part("MlpProjector", depth=2, input_dim=CODE, n_embed=HIDDEN, projector_type="mlp_gelu"),
        "gen_head_config": part("vision_head", image_token_embed=HIDDEN, image_token_size=CODES, n_embed=HIDDEN),
        "language_config": {
            "model_type": "llama",
            "vocab_size": VOCABULARY,
            "hidden_size": HIDDEN,
            "intermediate_size": WIDE,
            "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": TEXT_HEADS,
            "num_key_value_heads": KV_HEADS,
            "max_position_embeddings": 256,
            "torch_dtype": "float32",
        },
    }


def save(folder: Path, state: State, bins: int = 1) -> Path:
    """A folder as published: `bins` files of torch, the config, tokenizer and processor files."""
    folder.mkdir(parents=True)
    names = list(state)
    weight_map: dict[str, str] = {}
    for number in range(bins):
        file = "pytorch_model.bin" if bins == 1 else f"pytorch_model-{number + 1:05d}-of-{bins:05d}.bin"
        some = names[number::bins]
        torch.save({name: state[name] for name in some}, folder / file)
        weight_map |= dict.fromkeys(some, file)
    if bins > 1:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    tokenizer = tiny_tokenizer(["a red circle", "what is it?"], vocab_size=320)
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    files = {
        "config.json": config(),
        "tokenizer_config.json": {
            "bos_token": {"__type": "AddedToken", "content": BOS},
            "eos_token": EOS,
            "pad_token": EOS,  # as there: the processor's pad_tag is the one in use
            "model_max_length": 256,
            "tokenizer_class": "LlamaTokenizerFast",
        },
        "processor_config.json": {
            "image_tag": "<image_placeholder>",
            "num_image_tokens": GRID**2,
            "pad_tag": PAD,
            "processor_class": "VLChatProcessor",
            "sft_format": "deepseek",
        },
        "preprocessor_config.json": {
            "do_normalize": False,
            "image_mean": [0.5, 0.4, 0.5],
            "image_std": [0.5, 0.5, 0.6],
            "image_processor_type": "VLMImageProcessor",
            "image_size": SIDE,
            "min_size": 3,
            "rescale_factor": 0.00392156862745098,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False))
    return folder
