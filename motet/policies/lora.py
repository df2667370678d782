"""LoRA through peft, which is an extra."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from motet.config import LoraConfig
from motet.errors import CheckpointError, ConfigError


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise ConfigError("policy.lora needs the package peft.", fix="pip install 'motet[lora]'.") from None
    return peft


def wrap(model: Any, config: LoraConfig) -> Any:
    """The model with adapters on the language model's named linear layers; only they train, in float32."""
    peft = _peft()
    names = "|".join(map(re.escape, config.target_modules))
    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, target_modules=rf".*language_model\..*\.({names})", lora_dropout=0.0
    )
    try:
        return peft.get_peft_model(model, settings)
    except ValueError as error:
        raise ConfigError(
            f"policy.lora.target_modules={list(config.target_modules)}: {str(error).splitlines()[0]}",
            fix="name linear layers of the language model, such as q_proj or down_proj.",
        ) from error


def base_of(folder: Path) -> str:
    """The base checkpoint that an adapter folder names."""
    base = _peft().PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
    if not base:
        raise CheckpointError(f"The adapter in {folder} does not name its base model.", fix="load the base first.")
    return base


def attach(model: Any, folder: Path, trainable: bool) -> Any:
    """The model with the adapter of a folder."""
    return _peft().PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
