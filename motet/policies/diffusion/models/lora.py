"""LoRA inside a diffusers transformer, through peft and diffusers' own `add_adapter`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from motet.policies.lora import peft_library, require_targets

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""The linear layers of an attention, as diffusers names them: what gets an adapter by default."""


def add_adapters(transformer: Any, *, rank: int, alpha: float, target_modules: Sequence[str] = ATTENTION) -> None:
    """Put adapters into the transformer's named linear layers; only they train, in float32.

    Raises ConfigError without peft, and for names that no linear layer of the transformer has.
    """
    peft = peft_library()
    require_targets(dict(transformer.named_modules()), target_modules, "policy.diffusion.lora.target_modules")
    transformer.requires_grad_(False)
    transformer.add_adapter(
        peft.LoraConfig(
            r=rank,
            lora_alpha=alpha,  # type: ignore[arg-type]  a fraction is fine
            target_modules=list(target_modules),
            lora_dropout=0.0,
        )
    )
    for name, parameter in transformer.named_parameters():
        if ".lora_" in name:
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()


def has_adapters(transformer: Any) -> bool:
    """Whether there are adapters in the transformer."""
    return any(hasattr(module, "lora_A") for module in transformer.modules())


def save_adapters(pipeline: Any, folder: Path) -> None:
    """Write the adapters of the pipeline's transformer as diffusers' `load_lora_weights(folder)` reads them."""
    transformer = pipeline.transformer
    pipeline.save_lora_weights(
        folder,
        transformer_lora_layers=peft_library().get_peft_model_state_dict(transformer),
        transformer_lora_adapter_metadata=transformer.peft_config["default"].to_dict(),
    )


def without_adapters(transformer: Any) -> Any:
    """The transformer as its own class loads it: itself, or one of the merged weights if it has adapters.

    The trained transformer stays as it is: unmerging would round its frozen weights.
    """
    if not has_adapters(transformer):
        return transformer
    tensors: dict[str, torch.Tensor] = {}
    layers = {name: module for name, module in transformer.named_modules() if hasattr(module, "lora_A")}
    for name, value in transformer.state_dict().items():
        if ".lora_" in name:
            continue
        layer, dot, leaf = name.rpartition(".base_layer.")
        if dot and leaf == "weight":
            value = (value.float() + layers[layer].get_delta_weight("default").float()).to(value.dtype)
        tensors[f"{layer}.{leaf}" if dot else name] = value
    with torch.device("meta"):
        plain = type(transformer).from_config(transformer.config)
    plain.load_state_dict(tensors, assign=True)
    return plain
