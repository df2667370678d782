"""A unified model's folder: `language_model/` as transformers saves it, `transformer/`, `vae/` and `scheduler/` as
diffusers does, and between them `bridge.safetensors` with its sizes in `config.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from motet.config import DiffusionConfig
from motet.core.errors import CheckpointError
from motet.core.registry import first_line
from motet.policies.diffusion.models import Denoiser, open_denoiser
from motet.policies.unified.connector import ConnectorConfig, QueryConnector
from motet.weights.safetensors_io import save_tensors

MODEL_TYPE = "motet_unified"
LANGUAGE, _BRIDGE = "language_model", "bridge.safetensors"


def save_unified(folder: Path, reader: Any, bridge: QueryConnector, denoiser: Denoiser, size: tuple[int, int]) -> None:
    """Write all parts. Raises CheckpointError when they cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reader.save(folder / LANGUAGE)
        denoiser.save(folder)
        save_tensors(folder / _BRIDGE, {name: value.detach().cpu() for name, value in bridge.state_dict().items()})
        config = {
            "model_type": MODEL_TYPE,
            "connector": bridge.connector.config.to_dict(),
            "height": size[0],
            "width": size[1],
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CheckpointError(
            f"{str(folder)!r} cannot be written: {first_line(error)}",
            fix="check the disk and the folder's permissions.",
        ) from error


def open_unified(
    folder: Path, reader: Any, device: torch.device, settings: DiffusionConfig, dtype: torch.dtype | str = torch.float32
) -> dict[str, Any]:
    """What `UnifiedPolicy` is made of beside its reader: `bridge`, `denoiser`, `height` and `width`.

    `settings` may give another size of pictures than the checkpoint's own. `dtype` is the denoiser's, "auto": as it is
    stored; the bridge is float32. Raises CheckpointError for a folder in which a part is missing, broken, or of other
    sizes than its neighbours.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        sizes = ConnectorConfig(**config["connector"])
        height, width = settings.size or (int(config["height"]), int(config["width"]))
        weights = load_file(str(folder / _BRIDGE))
    except (OSError, ValueError, TypeError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"{str(folder)!r} is no whole unified model: {first_line(error)}.",
            fix=f"give a folder that motet saved, with config.json and {_BRIDGE}.",
        ) from error
    denoiser = open_denoiser(folder, dtype=dtype, device=device, embedded_guidance=settings.embedded_guidance)
    bridge = QueryConnector(sizes).to(device)
    _require_fit(folder, sizes, reader, denoiser)
    try:
        bridge.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(
            f"{str(folder / _BRIDGE)!r} does not fit config.json: {first_line(error)}.", fix="restore both files."
        ) from error
    return {"bridge": bridge, "denoiser": denoiser, "height": height, "width": width}


def _require_fit(folder: Path, sizes: ConnectorConfig, reader: Any, denoiser: Denoiser) -> None:
    """The connector reads what the experts beside it have, and is of their sizes."""
    draws = "image" in reader.kinds
    expected = {
        "input_width": reader.model.config.text_config.hidden_size,
        "output_width": denoiser.condition_width,
        "pooled_width": denoiser.pooled_width,
        "reads": "tokens" if draws else "queries",
        "num_queries": reader.num_image_tokens if draws else sizes.num_queries,
    }
    for name, value in expected.items():
        if getattr(sizes, name) != value:
            raise CheckpointError(
                f"{str(folder / 'config.json')!r} says connector.{name}={getattr(sizes, name)}, but the expert beside "
                f"it has {value}.",
                fix="put together the parts of one model.",
            )
