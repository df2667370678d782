"""A pipeline folder out: everything that diffusers' `from_pretrained` needs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from motet.core.errors import CheckpointError
from motet.core.write_errors import write_error
from motet.policies.diffusion.models.lora import has_adapters, save_adapters, without_adapters
from motet.weights.hf_output import suppress_hf_output


def save_pipeline(folder: Path, pipeline: Any, denoiser: Any, source: Path | None) -> None:
    """Write a complete folder: the trained transformer, and copies of all other components.

    Those are copied from `source`, not linked, so that the folder may be moved and changed on its own; without a source
    they are written from memory. With adapters, `transformer/` holds the merged weights in the type of the frozen ones,
    and `lora/` the adapters by themselves for `load_lora_weights` on the base. Raises CheckpointError when it cannot be
    written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress_hf_output():
            for name, component in pipeline.components.items():
                if component is not None and name != "transformer":
                    _save_component(component, folder / name, None if source is None else source / name)
            without_adapters(denoiser.transformer).save_pretrained(folder / "transformer")
            denoiser.save_adapter(folder)
            if has_adapters(denoiser.transformer):
                save_adapters(pipeline, folder / "lora")
            if source is None:
                pipeline.save_config(folder)
            elif source.resolve() != folder.resolve():
                shutil.copyfile(source / "model_index.json", folder / "model_index.json")
        for file in folder.rglob("*.safetensors"):  # safetensors writes for the owner only
            shutil.copymode(folder / "model_index.json", file)
    except (OSError, SafetensorError) as error:
        raise write_error(CheckpointError, repr(str(folder)), error) from error


def _save_component(component: Any, target: Path, source: Path | None) -> None:
    if source is None or not source.is_dir():
        component.save_pretrained(target)
    elif source.resolve() != target.resolve():
        shutil.copytree(source, target, dirs_exist_ok=True)  # follows the links of the hub's cache
