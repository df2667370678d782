"""Open a checkpoint: which class it is, on which device, with which parts trainable."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import JanusConfig

from motet.config import PolicyConfig
from motet.errors import CheckpointError
from motet.lookup import first_line
from motet.policies.janus import JanusPolicy
from motet.policies.janus.checkpoint import open_janus
from motet.policies.lora import attach, base_of
from motet.policies.vlm import VlmPolicy
from motet.policies.vlm.checkpoint import FAMILIES, open_vlm
from motet.quiet import quiet

UNIFIED = "motet_unified"
"""The `model_type` of a unified model's config.json."""


def load_policy(path: str | Path, config: PolicyConfig | None = None) -> Any:
    """Load a checkpoint folder (or hub id), or a LoRA adapter folder: its config.json says which policy it is.

    Janus in the transformers layout, Qwen2.5-VL and Qwen3-VL, and motet's own unified models. With a `config`, its
    device, precision and trainable parts apply; without one the policy is ready to sample and trains the default parts.
    Raises CheckpointError for a missing, broken or unsupported checkpoint.
    """
    settings = config or PolicyConfig(path=str(path))
    folder = Path(path)
    adapter = (folder / "adapter_config.json").is_file()
    source = base_of(folder) if adapter else str(path)
    opened = Opening(
        source,
        folder if adapter else None,
        choose_device(settings.device),
        torch.bfloat16 if settings.autocast == "bfloat16" else None,
        settings.rollout_batch,
    )
    preface = f"The adapter in {str(folder)!r} needs its base model. " if adapter else ""
    policy = _OPENERS[_model_type(source, preface)](opened)
    if settings.lora is not None and not adapter:
        policy.add_lora(settings.lora)
    elif not adapter:
        policy.train_parts(settings.train)
    if settings.gradient_checkpointing:
        policy.recompute_activations()
    return policy


@dataclass(frozen=True)
class Opening:
    """What an opener is told: where the weights are, and how they are to compute.

    Without autocast the weights' type is the compute type, float32; with it frozen weights may stay as stored.
    """

    source: str
    adapter: Path | None
    device: torch.device
    autocast: torch.dtype | None
    rollout_batch: int | None

    @property
    def dtype(self) -> torch.dtype | str:
        """The type that weights are loaded in."""
        return torch.float32 if self.autocast is None else "auto"

    def placed(self, model: Any) -> Any:
        """The model on its device, with the adapter attached."""
        model.to(self.device)
        if self.device.type == "cpu":  # torch's fused attention is slow backwards on CPUs: half of a training step
            model.set_attn_implementation("eager")
        return model if self.adapter is None else attach(model, self.adapter)

    @property
    def settings(self) -> dict[str, Any]:
        """What every policy takes."""
        return {"autocast": self.autocast, "rollout_batch": self.rollout_batch}


def _janus(opened: Opening) -> JanusPolicy:
    model, processor = open_janus(opened.source, opened.dtype)
    return JanusPolicy(opened.placed(model), processor, **opened.settings)


def _vlm(opened: Opening) -> VlmPolicy:
    model, processor = open_vlm(opened.source, opened.dtype)
    return VlmPolicy(opened.placed(model), processor, **opened.settings)


def _unified(opened: Opening) -> Any:
    from motet.policies.unified import UnifiedPolicy  # diffusers is an extra
    from motet.policies.unified.checkpoint import open_unified

    if opened.adapter is not None:
        raise CheckpointError(
            f"{str(opened.adapter)!r} is an adapter of a unified model, which is saved whole.",
            fix="give the unified model's own folder.",
        )
    return UnifiedPolicy(**open_unified(Path(opened.source), opened), **opened.settings)


_OPENERS: dict[str, Callable[[Opening], Any]] = {
    "janus": _janus,
    **dict.fromkeys(FAMILIES, _vlm),
    UNIFIED: _unified,
}


def choose_device(name: str) -> torch.device:
    """`auto`: CUDA, then MPS, then the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CheckpointError(
            f"policy.device={name!r} is not available: {str(error).splitlines()[0]}", fix="use policy.device=auto."
        ) from error
    return device


def _model_type(source: str, preface: str) -> str:
    """What config.json says, before anything is built: transformers would build a Janus around any config."""
    folder = Path(source)
    if not folder.exists() and (source.count("/") != 1 or source.startswith((".", "/", "~"))):  # not a hub id either
        raise CheckpointError(f"{preface}There is no checkpoint at {source!r}.", fix="check the path.")
    if folder.exists() and not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{preface}{source!r} holds no config.json.", fix="give the folder that holds config.json."
        )
    model_type = _config_of(source, preface).get("model_type")
    if model_type not in _OPENERS:
        raise CheckpointError(
            f"{preface}{source!r} is a {model_type!r} model, which motet has no policy for.",
            fix="use a Janus or Janus-Pro checkpoint in transformers format (deepseek-community/Janus-Pro-1B), a "
            "Qwen2.5-VL or Qwen3-VL, or a unified model that motet saved.",
        )
    return model_type


def _config_of(source: str, preface: str) -> dict[str, Any]:
    if (Path(source) / "config.json").is_file():
        try:
            found = json.loads((Path(source) / "config.json").read_text(encoding="utf-8"))
            return found if isinstance(found, dict) else {}
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{preface}{source}/config.json cannot be read: {first_line(error)}.", fix="restore the file."
            ) from error
    try:
        with quiet():
            return JanusConfig.get_config_dict(source)[0]
    except Exception as error:  # offline, no such repository, no access: the hub client has a kind for each
        raise CheckpointError(
            f"{preface}{source!r} is no folder here, and as a hub id it cannot be had: {first_line(error)}",
            fix="check the path or the hub id, the network, and `hf auth login`.",
        ) from error
