"""A LoRA adapter presented as full weights, so that it can be merged.

An adapter changes a weight by scale * B @ A. These products can be merged; the factors cannot: the mean of two A times
the mean of two B contains the cross terms B1 @ A2 and B2 @ A1, which were never trained, and because
B @ A = (B R) @ (R^-1 A), the result would depend on a rotation that has no effect on outputs. So an adapter with its
base is treated as a full checkpoint whose tensors are base + scale * B @ A, computed one at a time. Full checkpoints
and adapters may be mixed.

The result is full weights too. A plain mean of products would still be an adapter (factors stacked, ranks added), but a
Gaussian merge works per element and does not keep the low rank. With one kind of result for all methods it loads
without peft, and the next stage can add a new adapter to it. The price is disk space.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motet.core.errors import CheckpointError
from motet.weights.safetensors_io import StoredWeights, Weights, format_first_names, read_json

CONFIG = "adapter_config.json"
_FACTOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_SAME_BASE = (True, False, None, "gaussian", "orthogonal", "eva")
"""Initialisations that leave the base weights unchanged; the others (PiSSA, LoftQ, ...) subtract from them."""


class AdaptedWeights:
    """The weights of a base checkpoint with a LoRA adapter as saved by peft.

    Adapted tensors are float32 (float64 if base or adapter is), all others have the base's dtype.
    """

    def __init__(self, folder: Path, base: Weights) -> None:
        """Raises CheckpointError if the adapter is not a plain LoRA or does not fit the base."""
        config = read_json(folder / CONFIG)
        _check_plain_lora(folder, config)
        self.source, self.base = str(folder), base
        self.factors = StoredWeights(folder, "adapter_model")
        self.shapes, self.dtypes = base.shapes, dict(base.dtypes)
        self._rslora, self._alpha = bool(config.get("use_rslora")), float(config["lora_alpha"])
        self._modules: dict[str, str] = {}
        self._match_factors()

    def load(self, name: str) -> Tensor:
        weight = self.base.load(name)
        if name not in self._modules:
            return weight
        dtype = self.dtypes[name]
        down, up = (self.factors.load(self._factor(self._modules[name], which)).to(dtype) for which in "AB")
        rank = down.shape[0]
        return weight.to(dtype) + self._alpha / (rank**0.5 if self._rslora else rank) * (up @ down)

    def _match_factors(self) -> None:
        parts: dict[str, str] = {}
        for stored in self.factors.shapes:
            match = _FACTOR.fullmatch(stored)
            if match is None:
                raise self._error(f"holds {stored!r}, which is not a LoRA factor of a linear layer")
            parts[match[1]] = parts.get(match[1], "") + match[2]
        if not parts:
            raise self._error("does not contain LoRA factors")
        for module, which in parts.items():
            name = f"{module}.weight"
            if sorted(which) != ["A", "B"]:
                raise self._error(f"has only lora_{which} for {module}")
            down, up = (self.factors.shapes[self._factor(module, letter)] for letter in "AB")
            if len(down) != 2 or len(up) != 2 or up[1] != down[0] or self.shapes.get(name) != (up[0], down[1]):
                raise self._error(f"does not fit {name} of shape {self.shapes.get(name)} in {self.base.source!r}")
            self._modules[name] = module
            dtypes = {self.base.dtypes[name], *(self.factors.dtypes[self._factor(module, part)] for part in "AB")}
            self.dtypes[name] = torch.float64 if torch.float64 in dtypes else torch.float32

    @staticmethod
    def _factor(module: str, which: str) -> str:
        return f"base_model.model.{module}.lora_{which}.weight"

    def _error(self, problem: str) -> CheckpointError:
        return CheckpointError(
            f"The adapter in {self.source!r} {problem}.",
            fix="give a plain LoRA adapter with its own base, or a full checkpoint made with peft's merge_and_unload.",
        )


def base_folder(folder: Path) -> Path:
    """The local folder of the base named by an adapter's config. Raises CheckpointError if it does not exist."""
    base = read_json(folder / CONFIG).get("base_model_name_or_path")
    local = Path(base) if isinstance(base, str) and Path(base).is_dir() else cached_folder(base)
    if local is None:
        raise CheckpointError(
            f"The adapter in {str(folder)!r} names the base {base!r}, which is not a local folder and is not in the "
            "hub's cache.",
            fix="download the base and set base_model_name_or_path in adapter_config.json to its folder.",
        )
    return local


def cached_folder(name: Any) -> Path | None:
    """The folder of a model id in the hub's cache; None if it is not there. Downloads nothing."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True)) if isinstance(name, str) and name else None
    except (HFValidationError, LocalEntryNotFoundError):  # not a hub id, or not in the cache
        return None


def _check_plain_lora(folder: Path, config: dict[str, Any]) -> None:
    unsupported = {
        "peft_type": config.get("peft_type") != "LORA",
        "lora_alpha": not isinstance(config.get("lora_alpha"), int | float),
        "init_lora_weights": config.get("init_lora_weights", True) not in _SAME_BASE,
        "bias": config.get("bias", "none") != "none",
        **{key: bool(config.get(key)) for key in ("use_dora", "fan_in_fan_out", "alpha_pattern", "modules_to_save")},
    }
    wrong = [f"{key}={config.get(key)!r}" for key, is_wrong in unsupported.items() if is_wrong]
    if wrong:
        raise CheckpointError(
            f"The adapter in {str(folder)!r} is not a plain LoRA: {format_first_names(wrong)}.",
            fix="merge it into its base with peft's merge_and_unload and give the full checkpoint.",
        )
