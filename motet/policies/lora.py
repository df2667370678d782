"""LoRA through peft, which is an extra."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from motet.config import LoraConfig
from motet.core.errors import CheckpointError, ConfigError
from motet.core.registry import did_you_mean, first_line
from motet.policies.shards import full_data
from motet.weights.hf_output import suppress_hf_output


def peft_library() -> Any:
    """The module peft, which is an extra. Raises ConfigError without it."""
    try:
        import peft
    except ImportError:
        raise ConfigError("policy.lora needs the package peft.", fix="pip install 'motet[lora]'.") from None
    return peft


def require_targets(modules: Mapping[str, nn.Module], targets: Sequence[str], key: str) -> None:
    """Raise ConfigError for targets that are not the name of linear layers; peft ignores one that matches nothing.

    A target names all modules whose dotted name is it or ends with it. `modules`: those of the model, by dotted names.
    """
    linear = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    missing: list[str] = []
    for target in targets:
        named = [module for name, module in modules.items() if f".{name}".endswith(f".{target}")]
        if not named or not all(isinstance(module, nn.Linear) for module in named):
            missing.append(target)
    if missing:
        ends = dict.fromkeys(".".join(_last_name(name)) for name in linear)
        hints = "".join(did_you_mean(target, ends) for target in missing)
        raise ConfigError(
            f"{key}={list(targets)}: no linear layer is called {', '.join(map(repr, missing))}.{hints}",
            fix=f"name linear layers of the model: {', '.join(ends)}.",
        )


def _last_name(layer: str) -> list[str]:
    """The end of a dotted name that says what the layer is: one component, two where the last is a number."""
    parts = layer.split(".")
    return parts[-2:] if parts[-1].isdigit() else parts[-1:]


def wrap(model: Any, language_model: nn.Module, config: LoraConfig) -> Any:
    """The model with adapters on the language model's named linear layers; only they train, in float32.

    Raises ConfigError without peft, and for names that no linear layer of the language model has.
    """
    peft = peft_library()
    place = next(name for name, module in model.named_modules() if module is language_model)
    require_targets(dict(language_model.named_modules()), config.target_modules, "policy.lora.target_modules")
    names = "|".join(map(re.escape, config.target_modules))
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        target_modules=rf"{re.escape(place)}\.(.*\.)?({names})",
        lora_dropout=0.0,
    )
    with suppress_hf_output():
        return peft.get_peft_model(model, settings)


def base_model_of(folder: Path) -> str:
    """The base checkpoint that an adapter folder names."""
    peft = peft_library()
    try:
        base = peft.PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    except Exception as error:  # whatever a broken adapter_config.json makes of peft's dataclasses
        raise CheckpointError(
            f"The adapter in {str(folder)!r} cannot be read: {first_line(error)}.",
            fix="give a folder that peft's save_pretrained wrote.",
        ) from error
    if not base:
        raise CheckpointError(
            f"The adapter in {str(folder)!r} does not name its base model.",
            fix="write base_model_name_or_path into its adapter_config.json.",
        )
    return base


def attach(model: Any, folder: Path, trains: bool) -> Any:
    """The model with the adapter of a folder, which goes on training or is frozen.

    Raises CheckpointError if it does not fit.
    """
    peft = peft_library()
    try:
        with suppress_hf_output():
            wrapped = peft.PeftModel.from_pretrained(model, str(folder), is_trainable=trains)
        with safe_open(str(folder / "adapter_model.safetensors"), framework="pt") as stored:
            differing = set(stored.keys()) ^ set(peft.get_peft_model_state_dict(wrapped))
    except (
        Exception
    ) as error:  # no file, a broken file, other shapes: peft, safetensors and torch each have their kinds
        raise CheckpointError(
            f"The adapter in {str(folder)!r} cannot be loaded: {first_line(error)}",
            fix="give the adapter's own base model, and the files that peft's save_pretrained wrote.",
        ) from error
    if differing:  # peft would leave them at their start, with a warning
        raise CheckpointError(
            f"The adapter in {str(folder)!r} does not fit its base model; they differ at {sorted(differing)[0]}.",
            fix="give the adapter's own base model.",
        )
    return wrapped


def is_identity(wrapped: Any) -> bool:
    """Whether the adapters change nothing, as at their start: every B is zero."""
    return not any(bool(full_data(p).any()) for name, p in wrapped.named_parameters() if ".lora_B." in name)
