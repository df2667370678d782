"""Sizes of diffusion transformers: built without weights, and run once on fake tensors to count what they do.

Blocks differ from family to family (joint attention, linear attention, modulation), so operations are counted by
torch's FlopCounterMode and saved bytes by its saved-tensor hooks, instead of being derived for each.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from motet.config import DiffusionConfig, PolicyConfig
from motet.core.errors import CheckpointError
from motet.core.registry import first_line
from motet.estimation.building import component_configs, lora_parameters
from motet.estimation.counting import count_flops, fake_tensors, saved_bytes
from motet.estimation.model_size import BFLOAT16, FLOAT32, DenoiserSize, ModelSize, PartSize
from motet.policies.diffusion.models import Condition
from motet.policies.diffusion.models.common import DiffusersDenoiser
from motet.policies.diffusion.models.loading import denoiser_class_for, diffusers_library
from motet.policies.diffusion.models.lora import ATTENTION
from motet.policies.trainable import check_not_adapted, require_parts
from motet.policies.unified.connector import ConnectorConfig, QueryConnector
from motet.weights.safetensors_io import read_json

CONDITION_TOKENS = {
    "SanaTransformer2DModel": 300,
    "SD3Transformer2DModel": 333,  # 77 of CLIP, 256 of T5
    "FluxTransformer2DModel": 512,
    "Flux2Transformer2DModel": 512,
}
"""Tokens of a prompt as its pipeline encodes it by default, by transformer class; 128 elsewhere, where padding is cut.
"""


def pipeline_size(source: str, settings: PolicyConfig, diffusion: DiffusionConfig, dtype: str) -> ModelSize:
    """The size of a pipeline's folder: its transformer, and autoencoder and text encoders, which are frozen.

    Raises CheckpointError for a folder that is not a pipeline or is incomplete, ConfigError without diffusers.
    """
    library = diffusers_library()
    folder = Path(source)
    if not (folder / "model_index.json").is_file():
        raise CheckpointError(
            f"{source!r} is not a folder with model_index.json, and estimates read no pipelines from the Hub.",
            fix="give a folder with the pipeline's config files; weights are not needed.",
        )
    scheduler = library.FlowMatchEulerDiscreteScheduler()  # which reads numbers from its tensors
    others = {
        name: _count(library, module, cls, folder / name)
        for name, module, cls in component_configs(folder)
        if name not in ("transformer", "vae")
    }
    with fake_tensors():
        denoiser = _denoiser(library, folder, scheduler)
        size = _sized(denoiser, settings, diffusion, dtype, diffusion.size or _default_size(denoiser))
    stored = BFLOAT16 if dtype == "bfloat16" else FLOAT32
    encoders = {name: PartSize(count, stored) for name, count in others.items() if count}
    return replace(size, family=denoiser.transformer_class, parts={**size.parts, **encoders})


def unified_size(
    folder: Path, config: Mapping[str, Any], text: ModelSize, settings: PolicyConfig, dtype: str
) -> ModelSize:
    """The size of a unified model: `text`, the connector, and the denoiser of the folder."""
    library = diffusers_library()
    diffusion = settings.diffusion or DiffusionConfig()
    try:
        sizes = ConnectorConfig(**config["connector"])
        pixels = diffusion.size or (int(config["height"]), int(config["width"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{str(folder / 'config.json')!r} is not a unified model's: {first_line(error)}.", fix="restore the file."
        ) from error
    assert text.language is not None
    with torch.device("meta"):
        connector = QueryConnector(sizes)
    parts = {
        name: PartSize(sum(p.numel() for p in part.parameters()), FLOAT32, name in settings.train)
        for name, part in connector.parts.items()
    }
    own = settings.model_copy(update={"train": tuple(name for name in settings.train if name not in parts)})
    scheduler = library.FlowMatchEulerDiscreteScheduler()
    with fake_tensors():
        image = _sized(_denoiser(library, folder, scheduler), own, diffusion, dtype, pixels, sizes.num_queries)
    trains = any(part.trainable for part in (*parts.values(), *image.parts.values())) or text.language.trains
    assert image.denoiser is not None
    below = text.language.trains or any(part.trains for part in parts.values())
    language = replace(text.language, trains=below)  # the gradient reaches the queries through the language model
    denoiser = replace(image.denoiser, conditioned_on=sizes.num_queries, trains=trains)
    both = joined(replace(text, language=language), replace(image, denoiser=denoiser))
    return replace(both, family="unified", parts={**both.parts, **parts})


def joined(text: ModelSize, image: ModelSize) -> ModelSize:
    """A language model and a denoiser as one policy."""
    units = {**text.units, **image.units}
    parts = {**text.parts, **image.parts}
    return ModelSize(f"{text.family} + {image.family}", parts, text.language, image.denoiser, units, text.notes)


def _denoiser(library: Any, folder: Path, scheduler: Any) -> DiffusersDenoiser:
    """The denoiser of a folder, without weights."""
    index = read_json(folder / "model_index.json", missing_ok=True)
    config = read_json(folder / "transformer" / "config.json", missing_ok=True)
    family = denoiser_class_for(str(folder), (index.get("transformer") or (None, None))[1] or config.get("_class_name"))
    transformer = _built(getattr(library, family.transformer_class), folder / "transformer")
    vae_class = read_json(folder / "vae" / "config.json", missing_ok=True).get("_class_name")
    vae = _built(getattr(library, vae_class), folder / "vae") if vae_class else None
    return family(transformer, vae, scheduler)


def _built(model_class: Any, folder: Path) -> Any:
    try:
        return model_class.from_config(model_class.load_config(str(folder)))
    except Exception as error:  # a missing or broken file: diffusers has its kinds
        raise CheckpointError(
            f"The config of {str(folder)!r} cannot be read: {first_line(error)}.",
            fix="give a folder with the pipeline's config files; weights are not needed.",
        ) from error


def _count(library: Any, module: str, cls: str, folder: Path) -> int:
    """Parameters of a text encoder of transformers; 0 for what has none."""
    owner = library if module == "diffusers" else importlib.import_module("transformers")
    model_class = getattr(owner, cls, None)
    config_class = getattr(model_class, "config_class", None)
    if model_class is None or config_class is None:
        return 0
    with torch.device("meta"):
        model = model_class(config_class.from_pretrained(str(folder)))
    return sum(parameter.numel() for parameter in model.parameters())


def _default_size(denoiser: DiffusersDenoiser) -> tuple[int, int]:
    side = int(getattr(denoiser.config, "sample_size", None) or 128) * denoiser.compression
    return side, side


def _sized(
    denoiser: DiffusersDenoiser,
    settings: PolicyConfig,
    diffusion: DiffusionConfig,
    dtype: str,
    pixels: tuple[int, int],
    condition_tokens: int | None = None,
) -> ModelSize:
    transformer = denoiser.transformer
    adapters = 0
    train = settings.train
    if diffusion.lora is not None:
        targets = diffusion.lora.target_modules
        chosen = ATTENTION if targets == type(diffusion.lora).model_fields["target_modules"].default else targets
        lora = diffusion.lora.model_copy(update={"target_modules": chosen})
        adapters = lora_parameters(transformer, lora, "policy.diffusion.lora.target_modules")
        check_not_adapted([name for name in train if name == "transformer"], "policy.diffusion.lora")
    require_parts(denoiser.parts, train)
    trains = "transformer" in train
    transformer.requires_grad_(trains or bool(adapters))
    shape = denoiser.latent_shape(*pixels)
    tokens = condition_tokens or CONDITION_TOKENS.get(denoiser.transformer_class, 128)

    def work(rows: int) -> None:
        condition = Condition(torch.zeros(tokens, denoiser.condition_width), None, _pooled(denoiser), ())
        denoiser.velocity(torch.zeros(rows, *shape), torch.zeros(rows), [condition] * rows)

    blocks = [sum(p.numel() for p in block.parameters()) for block in _blocks(transformer)]
    kept = saved_bytes(work, transformer.parameters(), dtype)
    of_block = kept.per_row / max(1, len(blocks))
    flops = count_flops(lambda: work(1))
    if settings.gradient_checkpointing:  # what is kept between blocks, and one block that is computed again
        transformer.enable_gradient_checkpointing()
        transformer.train()
        kept = replace(kept, per_row=saved_bytes(work, transformer.parameters(), dtype).per_row + of_block)
    stored = BFLOAT16 if dtype == "bfloat16" else FLOAT32
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in denoiser.parts.items()}
    parts = {name: PartSize(count, stored, name in train) for name, count in counts.items()}
    parts["transformer"] = replace(parts["transformer"], adapters=adapters)
    vae_flops = 0.0
    if denoiser.vae is not None:
        parts["vae"] = PartSize(sum(p.numel() for p in denoiser.vae.parameters()), stored)
        vae_flops = count_flops(lambda: denoiser._to_pixels(torch.zeros(1, *shape)))
    size = DenoiserSize(
        tokens=denoiser.tokens(shape),
        condition_tokens=tokens,
        flops=flops,
        saved=kept.per_row,
        saved_per_block=of_block,
        casts=kept.casts if trains else 0.0,  # frozen weights are stored in the compute type
        decode_flops=vae_flops,
        trains=trains or bool(adapters),
    )
    return ModelSize(denoiser.transformer_class, parts, None, size, {"transformer": tuple(blocks)})


def _pooled(denoiser: DiffusersDenoiser) -> torch.Tensor | None:
    return None if denoiser.pooled_width is None else torch.zeros(denoiser.pooled_width)


def _blocks(transformer: nn.Module) -> list[nn.Module]:
    """The transformer's repeated blocks: what its lists of modules hold."""
    return [block for child in transformer.children() if isinstance(child, nn.ModuleList) for block in child]
