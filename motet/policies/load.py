"""Open a checkpoint: which class it is, on which device, with which parts trainable."""

from __future__ import annotations

import json
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
from motet.policies.parts import recompute_activations
from motet.quiet import quiet


def load_policy(path: str | Path, config: PolicyConfig | None = None) -> JanusPolicy:
    """Load a checkpoint folder (or hub id) in the transformers layout, or a LoRA adapter folder.

    With a `config`, its device, precision and trainable parts apply; without one the policy is ready to sample and
    trains the default parts. Raises CheckpointError for a missing, broken or unsupported checkpoint.
    """
    settings = config or PolicyConfig(path=str(path))
    folder = Path(path)
    adapter = (folder / "adapter_config.json").is_file()
    source = base_of(folder) if adapter else str(path)
    device = choose_device(settings.device)
    autocast = torch.bfloat16 if settings.autocast == "bfloat16" else None
    _refuse_other_models(source, f"The adapter in {str(folder)!r} needs its base model. " if adapter else "")
    # Without autocast the weights' type is the compute type: float32. With it, frozen weights may stay as stored.
    model, processor = open_janus(source, torch.float32 if autocast is None else "auto")
    model.to(device)
    if device.type == "cpu":  # torch's fused attention is slow backwards on CPUs: half of a training step at this size
        model.set_attn_implementation("eager")
    if adapter:
        model = attach(model, folder)
    policy = JanusPolicy(model, processor, autocast=autocast, rollout_batch=settings.rollout_batch)
    if settings.lora is not None and not adapter:
        policy.add_lora(settings.lora)
    elif not adapter:
        policy.train_parts(settings.train)
    if settings.gradient_checkpointing:
        recompute_activations(policy.model.model.language_model)
    return policy


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


def _refuse_other_models(source: str, preface: str) -> None:
    """Look at config.json before anything is built: transformers would build a Janus around any config."""
    folder = Path(source)
    if not folder.exists() and (source.count("/") != 1 or source.startswith((".", "/", "~"))):  # not a hub id either
        raise CheckpointError(f"{preface}There is no checkpoint at {source!r}.", fix="check the path.")
    if folder.exists() and not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{preface}{source!r} holds no config.json.", fix="give the folder that holds config.json."
        )
    model_type = _config_of(source, preface).get("model_type")
    if model_type != "janus":
        raise CheckpointError(
            f"{preface}{source!r} is a {model_type!r} model, which motet has no policy for.",
            fix="use a Janus or Janus-Pro checkpoint in transformers format (deepseek-community/Janus-Pro-1B).",
        )


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
