"""A LoRA adapter seen as the full weights that it stands for.

An adapter changes a weight by scale * B @ A. Those products are what can be merged; the factors cannot: the mean of
two A's times the mean of two B's holds the cross terms B1 @ A2 and B2 @ A1, which nobody trained, and since B @ A is
the same for (B R) @ (R^-1 A), the result even depends on a rotation that no output shows. So here an adapter over its
base *is* a full checkpoint, whose tensors are base + scale * B @ A, computed one at a time, and it merges as any other;
full checkpoints and adapters may be mixed.

The result is full weights too. A plain mean of products would still be an adapter (its factors stacked, the ranks added
up), but a Gaussian merge treats elements one by one and leaves no low rank; one kind of result for all methods loads
without peft, and the next stage puts a new adapter on it. Its price is disk space.
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
"""Starts of an adapter that leave the base's weights alone; the others (PiSSA, LoftQ, ...) subtract from them."""


class AdaptedWeights:
    """The weights of a base checkpoint with a LoRA adapter folder on it, as peft writes them.

    Adapted tensors come in float32 (float64 where either side is), all others as the base stores them.
    """

    def __init__(self, folder: Path, base: Weights) -> None:
        """Raises CheckpointError for an adapter of another kind, or for another base."""
        config = read_json(folder / CONFIG)
        _refuse_other_kinds(folder, config)
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
        wide = self.dtypes[name]
        down, up = (self.factors.load(self._factor(self._modules[name], which)).to(wide) for which in "AB")
        rank = down.shape[0]
        return weight.to(wide) + self._alpha / (rank**0.5 if self._rslora else rank) * (up @ down)

    def _match_factors(self) -> None:
        parts: dict[str, str] = {}
        for stored in self.factors.shapes:
            match = _FACTOR.fullmatch(stored)
            if match is None:
                raise self._misfit(f"holds {stored!r}, which is no LoRA factor of a linear layer")
            parts[match[1]] = parts.get(match[1], "") + match[2]
        if not parts:
            raise self._misfit("holds no LoRA factors")
        for module, which in parts.items():
            name = f"{module}.weight"
            if sorted(which) != ["A", "B"]:
                raise self._misfit(f"has only lora_{which} for {module}")
            down, up = (self.factors.shapes[self._factor(module, letter)] for letter in "AB")
            if len(down) != 2 or len(up) != 2 or up[1] != down[0] or self.shapes.get(name) != (up[0], down[1]):
                raise self._misfit(f"does not fit {name} of shape {self.shapes.get(name)} in {self.base.source!r}")
            self._modules[name] = module
            either = {self.base.dtypes[name], *(self.factors.dtypes[self._factor(module, part)] for part in "AB")}
            self.dtypes[name] = torch.float64 if torch.float64 in either else torch.float32

    @staticmethod
    def _factor(module: str, which: str) -> str:
        return f"base_model.model.{module}.lora_{which}.weight"

    def _misfit(self, problem: str) -> CheckpointError:
        return CheckpointError(
            f"The adapter in {self.source!r} {problem}.",
            fix="give a plain LoRA adapter on its own base, or the full checkpoint that peft's merge_and_unload makes.",
        )


def base_folder(folder: Path) -> Path:
    """The local folder of the base that an adapter names. Raises CheckpointError unless there is one."""
    base = read_json(folder / CONFIG).get("base_model_name_or_path")
    found = Path(base) if isinstance(base, str) and Path(base).is_dir() else cached_folder(base)
    if found is None:
        raise CheckpointError(
            f"The adapter in {str(folder)!r} names the base {base!r}, which is no folder here, nor in the hub's cache.",
            fix="download the base, and write its folder into base_model_name_or_path of adapter_config.json.",
        )
    return found


def cached_folder(name: Any) -> Path | None:
    """Where the hub's cache holds a model id that was loaded before; None when it does not. Downloads nothing."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True)) if isinstance(name, str) and name else None
    except (HFValidationError, LocalEntryNotFoundError):  # no id at all, or one that was never loaded
        return None


def _refuse_other_kinds(folder: Path, config: dict[str, Any]) -> None:
    refused = {
        "peft_type": config.get("peft_type") != "LORA",
        "lora_alpha": not isinstance(config.get("lora_alpha"), int | float),
        "init_lora_weights": config.get("init_lora_weights", True) not in _SAME_BASE,
        "bias": config.get("bias", "none") != "none",
        **{key: bool(config.get(key)) for key in ("use_dora", "fan_in_fan_out", "alpha_pattern", "modules_to_save")},
    }
    wrong = [f"{key}={config.get(key)!r}" for key, is_wrong in refused.items() if is_wrong]
    if wrong:
        raise CheckpointError(
            f"The adapter in {str(folder)!r} is no plain LoRA: {format_first_names(wrong)}.",
            fix="merge it into its base with peft's merge_and_unload first, and give the full checkpoint.",
        )
