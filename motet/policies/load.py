"""Open a checkpoint: which class it is, on which device, with which parts trainable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from motet.config import PolicyConfig
from motet.errors import CheckpointError
from motet.policies.janus import JanusPolicy


def load_policy(path: str | Path, config: PolicyConfig | None = None) -> JanusPolicy:
    """Load a checkpoint folder (or hub id) in the transformers layout, or a LoRA adapter folder.

    With a `config`, its device, precision and trainable parts apply; without one the policy is ready to sample and
    trains the default parts. Raises CheckpointError for a missing, broken or unsupported checkpoint.
    """
    settings = config or PolicyConfig(path=str(path))
    folder = Path(path)
    adapter = (folder / "adapter_config.json").is_file()
    source = _base(folder) if adapter else str(path)
    device = choose_device(settings.device)
    model, processor = _load_janus(source)
    model.to(device)
    if device.type == "cpu":  # torch's fused attention is slow backwards on CPUs: half of a training step at this size
        model.set_attn_implementation("eager")
    autocast = torch.bfloat16 if settings.autocast == "bfloat16" else None
    if adapter:
        from motet.policies.lora import attach

        model = attach(model, folder, trainable=True)
    policy = JanusPolicy(model, processor, autocast=autocast)
    if settings.lora is not None and not adapter:
        policy.add_lora(settings.lora)
    elif not adapter:
        policy.train_parts(settings.train)
    if settings.gradient_checkpointing:
        policy.model.model.language_model.gradient_checkpointing_enable({"use_reentrant": False})
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


def _base(folder: Path) -> str:
    from motet.policies.lora import base_of

    return base_of(folder)


def _load_janus(source: str) -> tuple[Any, Any]:
    _refuse_other_models(source)
    from transformers import AutoImageProcessor, AutoTokenizer, JanusForConditionalGeneration, JanusProcessor

    try:
        model = JanusForConditionalGeneration.from_pretrained(source, dtype="auto", low_cpu_mem_usage=True)
        tokenizer = AutoTokenizer.from_pretrained(source)
        image_processor = AutoImageProcessor.from_pretrained(source, use_fast=False)
        processor = JanusProcessor.from_pretrained(source, tokenizer=tokenizer, image_processor=image_processor)
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{source!r} cannot be loaded: {str(error).splitlines()[0]}",
            fix="give a folder that JanusForConditionalGeneration.save_pretrained and its processor wrote, or a hub id.",
        ) from error
    return model, processor


def _refuse_other_models(source: str) -> None:
    folder = Path(source)
    if not folder.exists():
        if source.count("/") == 1 and not source.startswith((".", "/")):
            return  # a hub id
        raise CheckpointError(f"There is no checkpoint at {source!r}.", fix="check policy.path.")
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{source!r} holds no config.json.", fix="give the folder that holds config.json.")
    model_type = json.loads((folder / "config.json").read_text()).get("model_type")
    if model_type != "janus":
        raise CheckpointError(
            f"{source!r} is a {model_type!r} model, which motet has no policy for.",
            fix="use a Janus or Janus-Pro checkpoint in transformers format.",
        )
