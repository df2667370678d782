"""Models without weights from the configs of a checkpoint, and their sizes.

Everything is built on torch's meta device: a 7 B model takes a second and no memory. Only config files are read, so a
folder with `config.json` alone is enough, and the published Janus sizes need no folder at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    Emu3ForConditionalGeneration,
    JanusForConditionalGeneration,
    PreTrainedConfig,
)

from motet.config import DiffusionConfig, LoraConfig, PolicyConfig
from motet.convert.janus_config import PRESETS, published_config
from motet.core.errors import CheckpointError
from motet.core.registry import first_line
from motet.estimation.counting import count_flops
from motet.estimation.model_size import FLOAT32, LanguageSize, ModelSize, PartSize, element_size
from motet.policies.composite import EXPERTS_MODEL_TYPE, LANGUAGE, PIPELINE
from motet.policies.emu3.prompt_encoding import GENERATED_AREA
from motet.policies.janus.images import PIXELS_AT_ONCE
from motet.policies.lora import require_targets
from motet.policies.qwen_vl.checkpoint import FAMILIES
from motet.policies.trainable import check_not_adapted, require_parts
from motet.weights.hub import missing_reason
from motet.weights.locate import resolve_checkpoint

CLASSES: dict[str, Any] = {"janus": JanusForConditionalGeneration, "emu3": Emu3ForConditionalGeneration, **FAMILIES}
"""Language models by `model_type`."""
DEFAULT_TRAIN = PolicyConfig.model_fields["train"].default
IMAGE_PIXELS = 512 * 512
"""Pixels of an image in a context of a Qwen-VL, unless policy.max_pixels is lower: the data are not read."""


def model_size(settings: PolicyConfig, dtype: str, attention: str = "flash") -> ModelSize:
    """The size of the policy that `policy` names, with what trains of it.

    `dtype` is the compute type of training, `attention` how scores are computed: `flash` keeps none of them, `eager`
    all, as on a CPU. Raises CheckpointError where there is no config, or for a model that is not supported, ConfigError
    for parts or adapters that the model does not have.
    """
    source = resolve_checkpoint(settings.path)
    if _is_pipeline(source):
        return _pipeline(source, settings, dtype)
    name = Path(source).name
    if not Path(source).exists() and name in PRESETS:
        size = _language_model("janus", published_config(name), settings, dtype, attention)
        return replace(size, notes=(f"sizes of {name} as published",))
    config = read_config(source)
    model_type = str(config.get("model_type"))
    if model_type == "motet_unified":
        return _unified(Path(source), config, settings, dtype, attention)
    if model_type == EXPERTS_MODEL_TYPE:
        folder = Path(source)
        return _beside(str(folder / LANGUAGE), str(folder / PIPELINE), settings, dtype, attention)
    if model_type not in CLASSES:
        raise CheckpointError(
            f"{source!r} is a {model_type!r} model, which motet cannot estimate.",
            fix="use a Janus, Emu3, Qwen2.5-VL, Qwen3-VL, a diffusers pipeline or a model that motet saved.",
        )
    diffusion = settings.diffusion
    if diffusion is not None and diffusion.path is not None:
        return _beside(source, resolve_checkpoint(diffusion.path), settings, dtype, attention)
    return _language_model(model_type, _config_object(model_type, config), settings, dtype, attention)


def read_config(source: str) -> dict[str, Any]:
    """`config.json` of a folder or a hub id. Raises CheckpointError."""
    file = Path(source) / "config.json"
    fix = "give a folder that holds config.json (weights are not needed), or one of the published sizes: " + (
        f"policy.path={' or '.join(PRESETS)}."
    )
    if not file.is_file():
        missing = missing_reason(source, "checkpoint")
        if missing is not None or Path(source).exists():
            raise CheckpointError(missing or f"{source!r} holds no config.json.", fix=fix)
    try:
        if file.is_file():
            found = json.loads(file.read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        return PreTrainedConfig.get_config_dict(source)[0]
    except Exception as error:  # a broken file, offline, no access: each library has its kinds
        raise CheckpointError(f"The config of {source!r} cannot be read: {first_line(error)}.", fix=fix) from error


def _config_object(model_type: str, config: Mapping[str, Any]) -> Any:
    try:
        return CLASSES[model_type].config_class.from_dict(dict(config))
    except Exception as error:  # transformers' strict dataclasses raise their own errors
        raise CheckpointError(
            f"A config.json of a {model_type!r} model is inconsistent: {first_line(error)}.", fix="restore the file."
        ) from error


def meta_language_model(model_type: str, config: Any) -> Any:
    """A language model of transformers on the meta device."""
    with torch.device("meta"):
        return CLASSES[model_type](config).eval()


def _language_model(model_type: str, config: Any, settings: PolicyConfig, dtype: str, attention: str) -> ModelSize:
    model = meta_language_model(model_type, config)
    parts = language_parts(model)
    language: Any = parts["language_model"]
    adapters = 0 if settings.lora is None else lora_parameters(language, settings.lora, "policy.lora.target_modules")
    chosen = _trained(settings, parts)
    stored = _stored(config, dtype)
    sizes = part_sizes(parts, chosen, stored)
    sizes["language_model"] = replace(sizes["language_model"], adapters=adapters)
    rest = sum(p.numel() for p in model.parameters()) - sum(size.parameters for size in sizes.values())
    if rest:
        sizes["image tokenizer"] = PartSize(rest, stored)
    below = {"language_model", "vision_model", "visual", "aligner", "generation_aligner", "generation_embeddings"}
    size = _language_size(model_type, model, settings)
    size = replace(size, attention=attention, trains=bool(adapters or below & set(chosen)), adapters=adapters)
    layers = tuple(sum(p.numel() for p in layer.parameters()) for layer in language.layers)
    return ModelSize(model_type, sizes, size, None, {"language_model": layers})


def language_parts(model: Any) -> dict[str, nn.Module]:
    """What can train of a language model, by the names of `policy.train`: see `LanguageModelAdapter.parts`."""
    if isinstance(model, Emu3ForConditionalGeneration):
        return {"language_model": model.model.text_model, "lm_head": model.lm_head}
    return {**dict(model.model.named_children()), "lm_head": model.lm_head}


def part_sizes(parts: Mapping[str, nn.Module], trained: Any, stored: int) -> dict[str, PartSize]:
    """Sizes by name; a parameter that two parts share (tied embeddings) counts in the first, and trains if either
    does.
    """
    owners: dict[int, str] = {}
    counts = dict.fromkeys(parts, 0)
    trains = {name: name in trained for name in parts}
    for name, part in parts.items():
        for parameter in part.parameters():
            owner = owners.setdefault(id(parameter), name)
            if owner == name:
                counts[name] += parameter.numel()
            elif trains[name]:
                trains[owner] = True
    return {name: PartSize(counts[name], stored, trains[name]) for name in parts}


def _trained(settings: PolicyConfig, parts: Mapping[str, nn.Module]) -> tuple[str, ...]:
    """The parts that train in full, as `motet.policies.loading` chooses them."""
    if settings.lora is not None:
        names = () if settings.train == DEFAULT_TRAIN else settings.train
        require_parts(parts, names)
        check_not_adapted([name for name in names if name in parts], "policy.lora")
        return ()
    require_parts(parts, settings.train)
    return settings.train


def lora_parameters(module: nn.Module, config: LoraConfig, key: str) -> int:
    """Parameters of adapters on the named linear layers: rank x (inputs + outputs) for each. Raises ConfigError."""
    require_targets(dict(module.named_modules()), config.target_modules, key)
    return sum(
        config.rank * (layer.in_features + layer.out_features)
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and any(f".{name}".endswith(f".{target}") for target in config.target_modules)
    )


def _stored(config: Any, dtype: str) -> int:
    """Bytes of a frozen weight: without autocast all is float32, with it weights stay as they are stored."""
    if dtype == "float32":
        return element_size("float32")
    stored = str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")
    return element_size("bfloat16" if stored in ("bfloat16", "float16") else "float32")


def _language_size(model_type: str, model: Any, settings: PolicyConfig) -> LanguageSize:
    text: Any = model.config.text_config
    heads = text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    size = LanguageSize(
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        heads=heads,
        kv_heads=text.num_key_value_heads,
        head_dim=head_dim,
        intermediate=text.intermediate_size,
        vocabulary=text.vocab_size,
        text_head=model.lm_head.weight.numel(),
        qk_norm=hasattr(language_parts(model)["language_model"].layers[0].self_attn, "q_norm"),  # type: ignore[union-attr]
    )
    if model_type == "janus":
        return _with_janus_images(size, model)
    return _with_emu3_images(size, model) if model_type == "emu3" else _with_qwen_images(size, model, settings)


def _with_janus_images(size: LanguageSize, model: Any) -> LanguageSize:
    inner, vision = model.model, model.config.vision_config
    tokens = model.config.vq_config.num_patches**2
    tower = sum(p.numel() for part in (inner.vision_model, inner.aligner) for p in part.parameters())
    attention = 4 * vision.num_hidden_layers * vision.hidden_size * vision.num_image_tokens**2
    return replace(
        size,
        image_codes=model.config.vq_config.num_embeddings,
        image_head=_products(inner.generation_head),
        image_actions=tokens,
        image_positions=tokens,
        shown_tokens=vision.num_image_tokens,
        vision_flops=float(2 * tower * vision.num_image_tokens + attention),
        decode_flops=count_flops(lambda: inner.vqmodel.decode(torch.zeros(1, tokens, dtype=torch.long, device="meta"))),
        image_pixels=vision.image_size**2,
        decode_bytes=decode_bytes(vision.image_size**2, model.config.vq_config.base_channels),
    )


def _with_emu3_images(size: LanguageSize, model: Any) -> LanguageSize:
    vq = model.config.vq_config
    factor = 2 ** (len(vq.channel_multiplier) - 1)
    side = round(GENERATED_AREA**0.5) // factor  # the default of the processor, whose file need not be there
    codes = vq.codebook_size
    grid = torch.zeros(1, 1, side, side, dtype=torch.long, device="meta")
    return replace(
        size,
        image_codes=codes,
        image_head=codes * size.width,
        image_actions=side * side,
        image_positions=side * side + side - 1,
        shown_tokens=side * (side + 1),
        decode_flops=count_flops(lambda: model.model.vqmodel.decode(grid)),
        image_pixels=PIXELS_AT_ONCE,  # one after another
        decode_bytes=decode_bytes((side * factor) ** 2, vq.base_channels),
    )


def decode_bytes(pixels: int, channels: int) -> float:
    """Of decoding one image: three feature maps of full size in float32, input, normed and output of a convolution."""
    return 3.0 * FLOAT32 * pixels * channels


def _with_qwen_images(size: LanguageSize, model: Any, settings: PolicyConfig) -> LanguageSize:
    """Vision towers of Qwen-VL: 2 operations per parameter and patch; their windows make attention a small rest."""
    vision = model.config.vision_config
    pixels = min(settings.max_pixels or IMAGE_PIXELS, IMAGE_PIXELS)
    patches = pixels // vision.patch_size**2
    visual = model.model.visual
    return replace(
        size,
        shown_tokens=patches // vision.spatial_merge_size**2,
        vision_flops=2.0 * sum(p.numel() for p in visual.parameters()) * patches,
    )


def _products(module: nn.Module) -> int:
    """Parameters of the linear layers in a module."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def _is_pipeline(source: str) -> bool:
    return (Path(source) / "model_index.json").is_file()


def _pipeline(source: str, settings: PolicyConfig, dtype: str) -> ModelSize:
    from motet.estimation.denoisers import pipeline_size  # diffusers is an extra

    return pipeline_size(source, settings, settings.diffusion or DiffusionConfig(), dtype)


def _beside(language: str, pipeline: str, settings: PolicyConfig, dtype: str, attention: str) -> ModelSize:
    """A language model and a pipeline as one policy."""
    from motet.estimation.denoisers import joined, pipeline_size

    own, of_pipeline = split_train(settings)
    config = read_config(language)
    text = _language_model(
        str(config["model_type"]), _config_object(str(config["model_type"]), config), own, dtype, attention
    )
    image = pipeline_size(pipeline, of_pipeline, settings.diffusion or DiffusionConfig(), dtype)
    return joined(text, image)


def split_train(settings: PolicyConfig) -> tuple[PolicyConfig, PolicyConfig]:
    """The settings of a composite's two members: `policy.train` names parts of both."""
    ours = ("transformer", "connector", "queries", "source_adapter")
    text = tuple(name for name in settings.train if name not in ours)
    image = tuple(name for name in settings.train if name in ours)
    if settings.lora is not None and settings.train == DEFAULT_TRAIN:
        text = DEFAULT_TRAIN
    return settings.model_copy(update={"train": text}), settings.model_copy(update={"train": image})


def _unified(folder: Path, config: Mapping[str, Any], settings: PolicyConfig, dtype: str, attention: str) -> ModelSize:
    from motet.estimation.denoisers import unified_size

    own, of_denoiser = split_train(settings)
    inner = read_config(str(folder / LANGUAGE))
    model_type = str(inner["model_type"])
    text = _language_model(model_type, _config_object(model_type, inner), own, dtype, attention)
    return unified_size(folder, config, text, of_denoiser, dtype)


def component_configs(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Components of a pipeline that have weights: name, library and class."""
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    for name, entry in index.items():
        if isinstance(entry, list) and len(entry) == 2 and all(entry) and (folder / name / "config.json").is_file():
            yield name, entry[0], entry[1]
