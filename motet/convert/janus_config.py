"""Convert between DeepSeek's `config.json` of Janus and Janus-Pro and `JanusConfig`.

The original config leaves much to its code: it gives only the name of the vision tower (`siglip_large_patch16_384`),
the image tokenizer is always `VQ-16`, and omitted keys of `language_config` are defaults of `LlamaConfig`. So sizes are
read from the shapes of tensors, or from the config if shapes do not determine them (heads, image size, context length).
Checked against the published 2,089,297,547 parameters of Janus-Pro-1B, not against the public weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import JanusConfig, JanusVisionConfig, JanusVQVAEConfig, LlamaConfig

from motet.convert.janus_names import original_name
from motet.core.errors import CheckpointError
from motet.core.registry import first_line

Shapes = Mapping[str, tuple[int, ...]]
_TOWERS = {
    "siglip_large_patch16_384": {"width": 1024, "layers": 24, "heads": 16, "patch_size": 16},
    "siglip_so400m_patch14_384": {"width": 1152, "layers": 27, "heads": 16, "patch_size": 14},
    "siglip_so400m_patch14_224": {"width": 1152, "layers": 27, "heads": 16, "patch_size": 14},
}
_TEXT_SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
)
_TEXT = (*_TEXT_SIZES, "hidden_act", "attention_bias", "mlp_bias", "head_dim", "rope_theta", "rope_scaling")


def original_layout(
    text: Mapping[str, Any], *, codes: tuple[int, int], vision: Mapping[str, Any], width: int, depths: tuple[int, int]
) -> dict[str, Any]:
    """A config in DeepSeek's layout.

    `codes`: number and width of the codebook entries; `vision`: parameters of the vision tower; `width`: its feature
    size; `depths`: linear layers of the understanding and of the generation aligner.
    """
    hidden, (count, size) = text["hidden_size"], codes
    aligner = {"projector_type": "mlp_gelu", "n_embed": hidden}
    parts = {
        "vision": ("CLIPVisionTower", dict(vision)),
        "aligner": ("MlpProjector", {**aligner, "input_dim": width, "depth": depths[0]}),
        "gen_vision": ("VQ-16", {"image_token_size": count, "n_embed": size}),
        "gen_aligner": ("MlpProjector", {**aligner, "input_dim": size, "depth": depths[1]}),
        "gen_head": ("vision_head", {"n_embed": hidden, "image_token_embed": hidden, "image_token_size": count}),
    }
    sections = {
        f"{name}_config": {"cls": cls, "model_type": name, "params": params} for name, (cls, params) in parts.items()
    }
    return {
        "architectures": ["MultiModalityCausalLM"],
        "model_type": "multi_modality",
        "language_config": {"model_type": "llama", **text},
        **sections,
    }


def _preset(hidden: int, intermediate: int, layers: int, heads: int) -> dict[str, Any]:
    text = {
        "vocab_size": 102400,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": 16384,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
    }
    tower = {"image_size": 384, "model_name": "siglip_large_patch16_384", "select_feature": "same", "select_layer": -1}
    return original_layout(text, codes=(16384, 8), vision=tower, width=1024, depths=(2, 2))


PRESETS: dict[str, dict[str, Any]] = {
    "Janus-1.3B": _preset(2048, 5632, 24, 16),
    "Janus-Pro-1B": _preset(2048, 5632, 24, 16),
    "Janus-Pro-7B": _preset(4096, 11008, 30, 32),
}
"""The published sizes in DeepSeek's layout with all keys, for folders without a config.json."""


def published_config(size: str) -> JanusConfig:
    """The config of a published size, a name in `PRESETS`; vision tower and image tokenizer are transformers' defaults.

    Its parameters are the published ones but for the tower's pooling head, which transformers does not have.
    """
    text = {key: value for key, value in PRESETS[size]["language_config"].items() if key != "model_type"}
    width = text["hidden_size"]
    return JanusConfig(
        text_config=LlamaConfig(**text, tie_word_embeddings=False),
        vision_config=JanusVisionConfig(projection_dim=width),
        vq_config=JanusVQVAEConfig(projection_dim=width, image_token_embed_dim=width),
        dtype="bfloat16",
        tie_word_embeddings=False,
    )


def to_transformers(source: str, original: Mapping[str, Any], shapes: Shapes, ids: Mapping[str, int]) -> JanusConfig:
    """The config of the model whose tensors, under transformers' names, have these `shapes`.

    `ids` are the token ids of `bos`, `eos`, `pad` and `image`. Raises CheckpointError, naming `source`, for configs of
    other models.
    """
    language = _section(source, original, "language_config")
    vision = _section(source, original, "vision_config", "params")
    _check_parts(source, original, vision)
    try:
        text = LlamaConfig(
            **{key: language[key] for key in _TEXT if key in language},
            bos_token_id=ids["bos"],
            eos_token_id=ids["eos"],
            pad_token_id=ids["pad"],
            tie_word_embeddings=False,
        )
        config = JanusConfig(
            text_config=text,
            vision_config=_vision(vision, shapes),
            vq_config=_vq(shapes),
            image_token_id=ids["image"],
            tie_word_embeddings=False,
        )
    except KeyError as error:
        raise _error(source, f"lacks the tensor {original_name(error.args[0])}") from error
    except Exception as error:  # transformers' strict dataclasses raise their own errors
        raise _error(source, f"has an inconsistent config: {first_line(error).rstrip('.')}") from error
    config.architectures = ["JanusForConditionalGeneration"]
    return config


def to_original(source: str, config: JanusConfig) -> dict[str, Any]:
    """The config in DeepSeek's layout. Raises CheckpointError for settings that this layout cannot express."""
    text: Any = config.text_config
    vision: Any = config.vision_config
    vq: Any = config.vq_config
    if vision.use_qk_norm or not vision.attention_bias or vq.double_latent:
        raise _error(source, "has a vision tower or image tokenizer that DeepSeek's code cannot build")
    size = {
        "width": vision.hidden_size,
        "layers": vision.num_hidden_layers,
        "heads": vision.num_attention_heads,
        "patch_size": vision.patch_size,
    }
    names = [name for name, tower in _TOWERS.items() if tower == size]
    params: dict[str, Any] = {"image_size": vision.image_size}
    params |= {"model_name": names[0]} if names else {"model_name": "siglip_unpublished", "heads": size["heads"]}
    params |= {"select_feature": "same", "select_layer": -1}
    rope = dict(text.rope_parameters)
    language = {key: getattr(text, key) for key in _TEXT_SIZES}
    plain = LlamaConfig(hidden_size=text.hidden_size, num_attention_heads=text.num_attention_heads)
    unusual = ("hidden_act", "attention_bias", "mlp_bias", "head_dim")
    language |= {key: getattr(text, key) for key in unusual if getattr(text, key) != getattr(plain, key)}
    language["rope_theta"] = rope.pop("rope_theta")
    if rope.get("rope_type", "default") != "default":
        language["rope_scaling"] = rope
    codes = (vq.num_embeddings, vq.embed_dim)
    depths = (vision.depth, vq.num_hidden_layers)
    return original_layout(language, codes=codes, vision=params, width=vision.hidden_size, depths=depths)


def is_published(config: Mapping[str, Any]) -> bool:
    """Whether DeepSeek's code supports a config's vision tower: it only has the published ones."""
    return config["vision_config"]["params"]["model_name"] in _TOWERS


def _vision(params: Mapping[str, Any], shapes: Shapes) -> JanusVisionConfig:
    width, _, patch, _ = shapes["model.vision_model.embeddings.patch_embedding.weight"]
    mlp_width = shapes["model.vision_model.encoder.layers.0.mlp.fc1.weight"][0]
    ratio = mlp_width / width
    image_size = params.get("image_size", 384)
    return JanusVisionConfig(
        hidden_size=width,
        num_hidden_layers=_count(shapes, "model.vision_model.encoder.layers."),
        num_attention_heads=params.get("heads") or _TOWERS[params["model_name"]]["heads"],
        image_size=image_size,
        patch_size=patch,
        mlp_ratio=ratio if int(width * ratio) == mlp_width else (mlp_width + 0.5) / width,  # transformers rounds down
        projection_dim=shapes["model.aligner.fc1.weight"][0],
        depth=1 + _count(shapes, "model.aligner.hidden_layers."),
        num_image_tokens=(image_size // patch) ** 2,
    )


def _vq(shapes: Shapes) -> JanusVQVAEConfig:
    base, channels, *_ = shapes["model.vqmodel.encoder.conv_in.weight"]
    codes, width = shapes["model.vqmodel.quantize.embedding.weight"]
    levels = range(_count(shapes, "model.vqmodel.encoder.down."))
    return JanusVQVAEConfig(
        embed_dim=width,
        num_embeddings=codes,
        latent_channels=shapes["model.vqmodel.encoder.conv_out.weight"][0],
        in_channels=channels,
        out_channels=shapes["model.vqmodel.decoder.conv_out.weight"][0],
        base_channels=base,
        channel_multiplier=[shapes[f"model.vqmodel.encoder.down.{n}.block.0.conv1.weight"][0] // base for n in levels],
        num_res_blocks=_count(shapes, "model.vqmodel.encoder.down.0.block."),
        projection_dim=shapes["model.generation_aligner.fc1.weight"][0],
        num_hidden_layers=1 + _count(shapes, "model.generation_aligner.hidden_layers."),
        image_token_embed_dim=shapes["model.generation_head.proj_out.weight"][1],
    )


def _count(shapes: Shapes, prefix: str) -> int:
    """The number of numbered modules under a prefix."""
    return len({name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)})


def _section(source: str, original: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    section: Any = original
    for key in path:
        section = section.get(key) if isinstance(section, Mapping) else None
    if not isinstance(section, Mapping):
        raise _error(source, f"has a config.json without {'.'.join(path)}")
    return section


def _check_parts(source: str, original: Mapping[str, Any], vision: Mapping[str, Any]) -> None:
    expected = {
        "vision_config": "CLIPVisionTower",
        "aligner_config": "MlpProjector",
        "gen_vision_config": "VQ-16",
        "gen_aligner_config": "MlpProjector",
        "gen_head_config": "vision_head",
    }
    for key, cls in expected.items():
        section = _section(source, original, key)
        if section.get("cls") != cls:
            raise _error(source, f"has {key}.cls={section.get('cls')!r} in its config.json instead of {cls!r}")
        projector = _section(source, original, key, "params").get("projector_type", "mlp_gelu")
        if projector != "mlp_gelu":
            raise _error(source, f"has {key}.params.projector_type={projector!r} instead of 'mlp_gelu'")
    if vision.get("heads") is None and vision.get("model_name") not in _TOWERS:
        raise _error(source, f"has the vision tower {vision.get('model_name')!r}; supported are {', '.join(_TOWERS)}")
    if vision.get("pixel_mean") is not None:
        raise _error(
            source, "normalises pixels inside its vision tower (pixel_mean), which transformers does not support"
        )


def _error(source: str, problem: str) -> CheckpointError:
    return CheckpointError(f"{source!r} {problem}.", fix="give a complete checkpoint of Janus or Janus-Pro.")
